"""The papers of a report: the section of its page, the list in Markdown, and the BibTeX file."""

from pathlib import Path

import pytest

from fmsd.citations import read_bibliography
from fmsd.errors import InputError
from fmsd.tasks.report import report
from tests.installed import on_path, write_package
from tests.runs import evaluation, finished


def reported(tmp_path: Path) -> Path:
    """A report on two runs, one of them with a later evaluation."""
    for place, method in enumerate(("lora", "probe")):
        finished(
            tmp_path / "runs" / method,
            [f"method={method}", "note=<script>alert(1)</script>"] if place else ["method=lora"],
            0,
            choices={"method": method, "wrapper": "erm"},
            manifests={"test": {"celebdf_v2": {}, "<b>x": {}}},
        )
    evaluation(tmp_path / "runs" / "lora", "later", "dfdc", 0, 5_000)
    report(tmp_path / "runs", out=tmp_path / "out", resamples=0)
    return tmp_path / "out"


def test_a_report_lists_the_papers_with_their_rows_and_addresses(tmp_path: Path) -> None:
    out = reported(tmp_path)
    page = (out / "report.html").read_text()
    section = page.partition('<section id="papers">')[2].partition("</section>")[0]
    assert (
        "Hu et al. (2022): LoRA: Low-Rank Adaptation of Large Language Models. International "
        "Conference on Learning Representations (ICLR), "
        '<a href="https://arxiv.org/abs/2106.09685" rel="noreferrer">arXiv 2106.09685</a> '
        "<small>for method=lora (row lora)</small>" in section
    )
    assert "<small>for data=celebdf_v2 (every row)</small>" in section
    assert "No paper is known for data=&lt;b&gt;x, method=probe, wrapper=erm." in section
    assert "<b>x" not in section
    assert "<script>" not in section
    text = (out / "results.md").read_text()
    assert "\n## Papers\n\n- " in text
    address = "[arXiv 2106.09685](https://arxiv.org/abs/2106.09685)"
    assert f"(ICLR), {address}, for method=lora (row lora)\n" in text
    assert list(read_bibliography(out / "references.bib")) == [
        "fmsd",
        "hu2022lora",
        "li2020celebdf",
    ]
    assert "% fmsd\n@misc{fmsd," in (out / "references.bib").read_text()


def test_a_report_replaces_its_own_bibliography_and_no_other(tmp_path: Path) -> None:
    out = reported(tmp_path)
    report(tmp_path / "runs", out=out, resamples=0)
    (out / "references.bib").write_text("@misc{mine,}\n")
    with pytest.raises(InputError, match=r"references.bib was not written by fmsd report"):
        report(tmp_path / "runs", out=out, resamples=0)
    assert (out / "references.bib").read_text() == "@misc{mine,}\n"


def test_a_report_does_not_fail_for_its_papers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "# Mine.\n# Cite: me2026mine\n_target_: odd.x\n"
    files = {"conf/method/mine.yaml": text, "conf/references.bib": "faulty"}
    write_package(tmp_path / "site", "odd", files)
    bad = tmp_path / "elsewhere" / "bad"
    bad.mkdir(parents=True)
    (bad / "run.json").write_text("{")
    choices = {"method": "mine", "wrapper": "sam"}
    merge = finished(tmp_path / "runs" / "merge", ["merger=ties"], 0, choices=choices, merged=["a"])
    (merge.folder / "config.yaml").write_text(f"experts: [{bad}, /{'x' * 300}, 3]\n")
    with on_path(tmp_path / "site"):
        report(tmp_path / "runs", out=tmp_path / "out", resamples=0)
    assert "foret2021sam" in read_bibliography(tmp_path / "out" / "references.bib")
    assert "Foret et al. (2021)" in (tmp_path / "out" / "report.html").read_text()
    told = "\n".join(caplog.messages)
    assert f"{bad / 'run.json'} is no JSON" in told
    assert f"{tmp_path / 'site/odd/conf/references.bib'} is no bibliography" in told
    assert f"What the expert '{'x' * 60}' of {merge.folder} was trained with" in told
    assert f"What the expert '3' of {merge.folder} was trained with" in told


EXTERNAL = {
    "kind": "detector", "scale": "logit", "higher": "fake", "sha256": "0" * 64,
    "levels": ["frame", "video"],
}  # fmt: skip


def test_a_detector_of_other_code_is_named_and_its_tests_are_cited(tmp_path: Path) -> None:
    """Nothing of its record is trusted: neither a path nor what a browser would run."""
    finished(tmp_path / "runs" / "own", ["method=lora"], 0, choices={"method": "lora"})
    for name, label in (("one", None), ("two", "<b>theirs")):
        finished(
            tmp_path / "runs" / name,
            [f"detector={name}"],
            0,
            external=EXTERNAL | {"detector": f"/secret/{name}.py"},
            label=label,
            choices={},
            manifests={"test": {"celebdf_v2": {}}},
        )
    report(tmp_path / "runs", out=tmp_path / "out", resamples=0, differ=["all"])
    section = (tmp_path / "out" / "report.html").read_text().partition('<section id="papers">')[2]
    assert "No paper is known for the detector &lt;b&gt;theirs, the detector one.py" in section
    assert "for data=celebdf_v2 (rows " in section
    assert "/secret" not in section
