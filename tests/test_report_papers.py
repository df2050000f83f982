"""The papers of a report: the section of its page, the list in Markdown, and the BibTeX file."""

from pathlib import Path

import pytest

from fmsd.citations import read_bibliography
from fmsd.errors import InputError
from fmsd.tasks.report import report
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
        "<small>for method=lora (row method=lora)</small>" in section
    )
    assert "<small>for data=celebdf_v2 (every row)</small>" in section
    assert "No paper is known for data=&lt;b&gt;x, method=probe, wrapper=erm." in section
    assert "<b>x" not in section
    assert "<script>" not in section
    text = (out / "results.md").read_text()
    assert "\n## Papers\n\n- " in text
    address = "[arXiv 2106.09685](https://arxiv.org/abs/2106.09685)"
    assert f"(ICLR), {address}, for method=lora (row method=lora)\n" in text
    assert list(read_bibliography(out / "references.bib")) == [
        "fmsd",
        "hu2022lora",
        "li2020celebdf",
    ]
    assert "% fmsd evaluate, fmsd train\n@misc{fmsd," in (out / "references.bib").read_text()


def test_a_report_replaces_its_own_bibliography_and_no_other(tmp_path: Path) -> None:
    out = reported(tmp_path)
    report(tmp_path / "runs", out=out, resamples=0)
    (out / "references.bib").write_text("@misc{mine,}\n")
    with pytest.raises(InputError, match=r"references.bib was not written by fmsd report"):
        report(tmp_path / "runs", out=out, resamples=0)
    assert (out / "references.bib").read_text() == "@misc{mine,}\n"
