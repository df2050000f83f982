"""The rows of a report: trainings, merges, evaluations and robustness."""

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from fmsd.metrics.table import compute_results
from fmsd.tasks.report import report
from tests.runs import (
    CORRUPTIONS,
    corrupted_frames,
    evaluation,
    finished,
    frames,
    method_runs,
    specialist_runs,
)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return specialist_runs(tmp_path / "runs")


@pytest.fixture
def methods(tmp_path: Path) -> Path:
    return method_runs(tmp_path / "runs")


def test_evaluations_add_the_datasets_that_a_run_lacks_the_newest_first(
    runs: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    evaluation(runs / "merge", "old", "celeb", 1, 1_000)
    evaluation(runs / "merge", "new", "celeb", 2, 2_000)
    evaluation(runs / "merge", "again", "ff", 3, 3_000)
    tidy = report(runs).filter(run="average of swap0 + swap1", level="frame", metric="auc")
    assert tidy["dataset"].to_list() == ["ff", "celeb"]
    expected = [
        compute_results(frames(dataset, (), seed), "")
        .filter(level="frame", metric="auc")["value"]
        .item()
        for dataset, seed in (("ff", 0), ("celeb", 2))
    ]
    assert tidy["value"].to_list() == pytest.approx(expected)
    moved = tmp_path / "moved"
    shutil.move(runs / "merge" / "evaluations", moved)
    alone = report(moved).filter(
        level="frame", metric="auc"
    )  # without a trained run these are the rows
    assert sorted(alone["dataset"]) == ["celeb", "ff"]
    shutil.move(moved, runs / "swap0" / "far")
    record = json.loads((runs / "swap0" / "far" / "old" / "run.json").read_text())
    for name in ("old", "new", "again"):
        (runs / "swap0" / "far" / name / "run.json").write_text(
            json.dumps(record | {"run": str(tmp_path / "elsewhere")})
        )
    shutil.move(runs / "swap0" / "far", runs / "far")
    report(runs)
    assert "3 evaluations are left out, as the runs they test are not below" in caplog.text


def test_trainings_and_merges_that_vary_the_same_words_are_told_apart(tmp_path: Path) -> None:
    for size in (64, 96):
        finished(tmp_path / f"full{size}", ["method=full", f"size={size}"], 0)
        finished(tmp_path / f"r2m{size}", ["merger=r2m", f"size={size}"], 0, merged=["a", "b"])
    found = {
        "size 64",
        "size 96",
        "R2M of a + b, size 64",
        "R2M of a + b, size 96",
    }
    assert set(report(tmp_path)["run"]) == found
    finished(tmp_path / "other", ["merger=ties", "size=64"], 0, merged=["a", "b"])
    assert set(report(tmp_path)["run"]) == found | {"TIES of a + b, size 64"}
    shutil.rmtree(tmp_path / "full96")
    shutil.rmtree(tmp_path / "r2m96")
    assert set(report(tmp_path)["run"]) == {"full", "R2M of a + b", "TIES of a + b"}


def test_a_merge_may_have_no_seed(runs: Path, tmp_path: Path) -> None:
    record = json.loads((runs / "merge" / "run.json").read_text())
    (runs / "merge" / "run.json").write_text(json.dumps(record | {"seed": None}))
    assert set(report(runs, by="domain")["seed"]) == {None, 0, 1}
    tidy = report(runs, out=tmp_path / "out", resamples=20)
    assert set(tidy["seed"]) == {None, 0, 1}
    assert tidy.filter(pl.col("seed").is_null(), metric="auc")["low"].null_count() == 0


@pytest.mark.slow
def test_robustness_is_a_mean_over_the_severities_that_all_runs_have(
    methods: Path, tmp_path: Path
) -> None:
    for method in ("fmsd", "lora"):
        tested = CORRUPTIONS if method == "fmsd" else {"jpeg": (1, 3, 4)}
        evaluation(methods / f"{method}0", "stress", "celeb", 3, 5_000, corruptions=tested)
    evaluation(
        methods / "lora0", "later", "celeb", 3, 9_000, corruptions={"jpeg": (1,), "blur": (1,)}
    )
    report(methods, out=tmp_path / "out", resamples=0)
    text = (tmp_path / "out" / "report.html").read_text()
    part = text[text.index('<section id="robustness">') :].partition("</section>")[0]
    assert "Mean over the severities that all runs have" in part
    assert "jpeg: 1, 3; blur: 1." in part
    clean, one, three = (
        compute_results(corrupted_frames("celeb", 3, severity), "")
        .filter(level="video", metric="auc")["value"]
        .item()
        for severity in (0, 1, 3)
    )
    for row in re.findall(r"<tr>.*?</tr>", part)[1:]:
        values = [float(value) for value in re.findall(r'data-value="([^"]*)"', row)]
        assert values == pytest.approx([clean, (one + three) / 2, one], abs=1e-5)


def test_the_newest_evaluation_counts_by_its_time_and_shadowed_ones_are_told(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, seed, when, time in (
        ("copied", 1, 9_000, "2026-01-01T00:00:00+00:00"),
        ("new", 2, 1_000, "2026-02-01T00:00:00+00:00"),
    ):
        found = evaluation(runs / "merge", name, "celeb", seed, when)
        found.write_record(found.record() | {"time": time})
    evaluation(runs / "merge", "large", "ff", 3, 3_000, size=448)
    tidy = report(runs).filter(
        run="average of swap0 + swap1", level="frame", metric="auc", dataset="celeb"
    )
    assert tidy["value"].item() == pytest.approx(
        compute_results(frames("celeb", (), 2), "")
        .filter(level="frame", metric="auc")["value"]
        .item()
    )
    merge = runs / "merge"
    assert "copied" not in caplog.text  # it was tested by the same protocol
    assert (
        f"{merge / 'evaluations/large'} was tested on ff, too, but the results of {merge} count "
        "(they differ in size)." in caplog.messages
    )


def test_thresholds_are_those_of_the_folder_that_the_numbers_lie_in(tmp_path: Path) -> None:
    finished(tmp_path / "runs" / "without", ["method=a"], 0)
    run = finished(tmp_path / "runs" / "with", ["method=b"], 0)
    found = evaluation(run.folder, "later", "dfdc", 1, 1_000)
    thresholds = {"frame": 0.7, "video": 0.6}
    stamps = found.results().select("dataset", "level", "stamp").unique()
    measured = compute_results(frames("dfdc", (), 1), "iid", thresholds=thresholds)
    found.write_results(measured.join(stamps, on=["dataset", "level"], maintain_order="left"))
    found.write_record(found.record() | {"thresholds": thresholds})
    for by in ("dataset", "domain"):
        tidy = report(tmp_path / "runs", "acc_val", out=tmp_path / "out", by=by, resamples=20)
        assert set(tidy.filter(metric="acc_val")["dataset"]) == {"dfdc"}
