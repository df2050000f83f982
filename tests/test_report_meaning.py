"""Calibration, thresholds and verdicts in a report follow from predictions."""

from pathlib import Path

import polars as pl
import pytest

from fmsd.errors import InputError
from fmsd.metrics.decision import score_meanings
from fmsd.metrics.score_meaning import KINDS, selection_sentence
from fmsd.metrics.verdicts import count_verdicts, video_points
from fmsd.runs.folder import VALIDATION, Run
from fmsd.tasks.report import report
from tests.pages import tables
from tests.runs import evaluation, finished, frames, sealed


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds with validation predictions and a later test, and a run without."""
    for seed in (0, 1):
        run = finished(tmp_path / "runs" / f"fmsd{seed}", ["method=fmsd"], seed)
        run.write_table(VALIDATION, frames("dfdc", (), 7 + seed, 1.5))
        evaluation(run.folder, "later", "dfdc", 3 + seed, 5_000)
    finished(tmp_path / "runs" / "merge", ["merger=<b>"], 0)
    return tmp_path / "runs"


def test_a_row_for_each_run_says_what_was_fitted(runs: Path, tmp_path: Path) -> None:
    report(runs, out=tmp_path / "out", resamples=0)
    page = tmp_path / "out" / "report.html"
    video_fit, video_points_, frame_fit, _ = tables(page, "meaning")
    for level, fit in (("video", video_fit), ("frame", frame_fit)):
        for seed, row in enumerate(fit):
            meaning = score_meanings(frames("dfdc", (), 7 + seed, 1.5))[level]
            assert meaning.calibration is not None
            assert row == [
                f"fmsd, seed {seed}",
                KINDS[meaning.calibration.kind],
                *(
                    f"{errors[key]:.3f}"
                    for key in ("log_loss", "brier", "ece")
                    for errors in (meaning.before, meaning.after)
                ),
                "12 real and 24 fake videos",
            ]
    for seed, row in enumerate(video_points_):
        points = video_points(frames("dfdc", (), 7 + seed, 1.5))
        for cell, point in zip(row[1:], points.values(), strict=True):
            rate, low, high = (100 * value for value in point.false_positive_rate)
            assert cell.startswith(
                f"{point.threshold:.4f} FPR {rate:.1f} % [{low:.1f}, {high:.1f}]"
            )
        assert [cell.endswith("no verdict") for cell in row[1:]] == [True, True, False]
    _, *of_runs = tables(page, "transfer")
    for table in of_runs:
        assert [row[-2:] for row in table] == [["-", "-"]] * len(table), "there is no verdict"
    assert len(of_runs) == 2
    assert selection_sentence("iid") in page.read_text()
    assert "Without predictions of a validation split: &lt;b&gt;." in page.read_text()


def test_verdicts_of_runs_and_evaluations_have_one_cell_each(runs: Path, tmp_path: Path) -> None:
    report(runs, out=tmp_path / "out", resamples=0)
    first, second, *_ = tables(tmp_path / "out" / "report.html", "verdicts")
    for kind, table in (("false_positive", first), ("true_positive", second)):
        for seed, (name, *cells) in enumerate(table):
            assert name == f"fmsd, seed {seed}"
            folder = runs / f"fmsd{seed}"
            files = [
                folder / "predictions" / "celeb.parquet",
                folder / "evaluations" / "later" / "predictions" / "dfdc.parquet",
                folder / "predictions" / "ff.parquet",
            ]
            points = video_points(frames("dfdc", (), 7 + seed, 1.5))
            expected = count_verdicts(pl.concat(map(pl.read_parquet, files)), points)
            expected = expected.filter(at="fpr10")  # fpr5 has too few reals
            ends = (expected[f"{kind}_{part}"] for part in ("rate", "low", "high"))
            assert cells == [
                f"{rate:.3f} [{low:.3f}, {high:.3f}]" for rate, low, high in zip(*ends, strict=True)
            ]


def test_changed_validation_predictions_are_refused(runs: Path, tmp_path: Path) -> None:
    run = sealed(Run(runs / "fmsd0"))
    run.write_table(VALIDATION, frames("dfdc", (), 99))
    with pytest.raises(InputError, match=r"validation\.parquet"):
        report(runs, out=tmp_path / "out", resamples=0)
    assert not (tmp_path / "out").exists()
