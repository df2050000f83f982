"""`fmsd report`: the command, its picture, a run's own page, and damaged files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.figures import merges
from fmsd.tasks.report import report
from tests.runs import finished, lines, specialist_runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return specialist_runs(tmp_path / "runs")


def test_the_picture_shows_the_means_of_videos(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, draw = [], merges.plot_domain_matrix
    monkeypatch.setattr(
        merges, "plot_domain_matrix", lambda *arguments: drawn.append(arguments) or draw(*arguments)
    )
    tidy = report(runs, out=tmp_path / "out", by="domain").filter(level="video", metric="auc")
    ((rows, columns, values, metric, inverted),) = drawn
    assert metric == "AUC"
    assert inverted == [(1, columns.index("ff/puppet"))]
    assert rows == ["average of swap0 + swap1", "forgeries swap"]
    for row, label in enumerate(rows):
        for column, name in enumerate(columns):
            dataset, domain = name.split("/")
            found = tidy.filter(run=label, dataset=dataset, domain=domain)["value"]
            np.testing.assert_allclose(values[row][column], found.mean() if len(found) else np.nan)
    with Image.open(tmp_path / "out" / "domains.png") as image:
        assert image.format == "PNG"
    report(runs, "eer", out=tmp_path / "eer", by="domain")
    assert drawn[1][3] == "Equal error rate"


@pytest.mark.slow
def test_the_command_and_what_it_refuses(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            [
                "report",
                "runs=runs",
                "out=tables",
                "against=average",
                "differ=[augment]",
                "resamples=20",
            ]
        )
        == 0
    )
    assert (tmp_path / "tables" / "report.html").is_file()
    for words, sentence in {
        ("by=colour",): "by=colour is unknown; choose one of dataset, domain, split, compression.",
        ("holm=row",): "holm=row is unknown; choose one of column, table.",
        ("metric=f1",): "metric=f1 is unknown; choose one of acc, ap, auc",
        ("against=average", "resamples=0"): "resamples=0 leaves nothing to compare by; give 1000.",
        (
            "against=average",
            "by=domain",
        ): "against= compares whole datasets; leave it out, or set by=dataset.",
        ("out=runs/merge",): "out=runs/merge is the folder of a run",
    }.items():
        capsys.readouterr()
        assert main(["report", "runs=runs", *words]) == 2
        assert sentence in capsys.readouterr().err


def test_a_damaged_file_of_the_page_is_told_before_any_table(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "merge" / "mask.json").write_text("{")
    assert main(["report", f"runs={runs}", f"out={tmp_path / 'out'}", "resamples=0"]) == 2
    said = capsys.readouterr()
    assert "mask.json is no JSON" in said.err
    assert "AUC" not in said.out
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_damaged_files_are_told_in_one_sentence(runs: Path, tmp_path: Path) -> None:
    merge = runs / "merge"
    record = json.loads((merge / "run.json").read_text())
    facts = {
        stamp: {name: fact for name, fact in own.items() if name != "naming"}
        for stamp, own in record["stamps"].items()
    }
    (merge / "explanations").mkdir()
    stress = "dataset,level,metric,value,n_frames,selection\nff,video,auc,0.5,9,iid\n"
    damages = {
        "run.json": {
            "{": "is no JSON",
            "[]": "should be a valid dictionary",
            json.dumps(
                {key: value for key, value in record.items() if key != "overrides"}
            ): "lacks overrides",
            json.dumps(record | {"stamps": facts}): "has a stamp without naming",
        },
        "results.csv": {
            "": "does not hold a run's results",
            "a,b\n1,2\n": "does not hold",
            "dataset,level,metric,value\nff,video,auc,high\n": "does not",
        },
        "corruptions.csv": {stress: "does not hold a run's results"},
        "mask.json": {
            "nothing": "is no JSON",
            "{}": "it lacks 'format'",
            "[1]": "should be a valid dictionary",
            '{"units": ["a"], "steps": [1], "active": [], "scores": []}': "not of all units",
        },
        "spectra.json": {'{"layers": 3}': "'layers' should be a valid dictionary"},
        "explanations/a.png": {"nothing": "is no picture"},
        "config.yaml": {
            "{": "is no configuration",
            "a: &a [1]\nb: [*a, *a]": "has the YAML alias *a",
            "a: !!python/name:os.system": "has the YAML tag",
        },
    }
    for name, texts in damages.items():
        before = (merge / name).read_bytes() if (merge / name).exists() else None
        for text, sentence in texts.items():
            (merge / name).write_text(text)
            with pytest.raises(InputError) as told:
                report(runs, out=tmp_path / "out", resamples=0)
            assert sentence in str(told.value)
            assert str(merge / name) in str(told.value)
        if before is None:
            (merge / name).unlink()
        else:
            (merge / name).write_bytes(before)
    report(runs, out=tmp_path / "out", resamples=0)


def test_a_runs_own_page_has_no_intervals_and_claims_nothing_of_inversions(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", [], 0, inverted=("swap", "puppet"), datasets=("ff", "celeb"))
    text = (run.folder / "results.md").read_text()
    (frame, video) = lines(text.partition("## ap")[0])[2:]
    for level, row in (("frame", frame), ("video", video)):
        values = [
            run.results().filter(metric="auc", level=level, dataset=dataset)["value"].item()
            for dataset in ("ff", "celeb")
        ]
        assert row == [level, *(f"{value:.4f}" for value in values)]
        assert values[0] < 0.5 < values[1]
    assert "inverted" not in text
    assert "ff 12 real, 24 fake videos; celeb 12 real, 12 fake videos." in text
