"""Verdicts on test videos: counted by hand, bound to the thresholds of predictions, and printed."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fmsd.json_output import write_document
from fmsd.metrics.decision import score_meanings
from fmsd.metrics.score_meaning import RATES, threshold_name
from fmsd.metrics.verdicts import count_verdicts, video_points
from fmsd.report.terminal import print_verdicts
from fmsd.runs.folder import VALIDATION
from fmsd.runs.verdicts import run_verdicts
from tests.runs import finished, frames


def test_thresholds_are_those_of_predictions_of_files() -> None:
    validation = frames("ff", (), 5)
    assert [threshold_name(rate) for rate in RATES.values()] == list(RATES)
    for video_score in ("mean", "max", "top2"):
        meaning = score_meanings(validation, video_score)["video"]
        assert video_points(validation, video_score) == meaning.points


@pytest.mark.parametrize("video_score", ["mean", "max"])
def test_verdicts_are_counted_as_by_hand(video_score: str) -> None:
    validation = frames("ff", (), 5)
    tests = pl.concat([frames("celeb", (), 6), frames("dfdc", ("morph",), 7)])
    table = count_verdicts(tests, video_points(validation, video_score), "id", video_score)
    assert table.select("dataset", "at").rows() == [
        (dataset, at) for dataset in ("celeb", "dfdc") for at in ("fpr1", "fpr5", "fpr10")
    ]
    scored = tests.with_columns(score=1 / (1 + (-pl.col("logit").cast(pl.Float64)).exp()))
    for row in table.iter_rows(named=True):
        counts: dict[str, int] = {"tp": 0, "fn": 0, "fp": 0, "tn": 0}
        for _, video in scored.filter(dataset=row["dataset"]).group_by("video"):
            score = getattr(video["score"], video_score)()
            called = score >= row["threshold"]
            right = called == bool(video["label"][0])
            counts[("t" if right else "f") + ("p" if called else "n")] += 1
        names = ("true_positives", "false_negatives", "false_positives", "true_negatives")
        assert list(counts.values()) == [row[name] for name in names]
        for kind, count, total in (
            ("false_positive", counts["fp"], counts["fp"] + counts["tn"]),
            ("true_positive", counts["tp"], counts["tp"] + counts["fn"]),
        ):
            rate, low, high = (row[f"{kind}_{part}"] for part in ("rate", "low", "high"))
            assert rate == count / total
            for end in {low, high} - {0.0, 1.0}:  # where a 95 % test just does not refuse the end
                assert abs(rate - end) == pytest.approx(
                    1.959964 * np.sqrt(end * (1 - end) / total), rel=1e-6
                )


def test_on_the_validation_data_the_rates_are_those_of_the_thresholds() -> None:
    validation = frames("ff", (), 5)
    table = count_verdicts(validation, video_points(validation))
    for row, rate in zip(table.iter_rows(named=True), RATES.values(), strict=True):
        assert row["false_positive_rate"] <= rate
        point = video_points(validation)[rate]
        assert (row["false_positives"], row["true_positives"]) == (
            point.false_positives,
            point.true_positives,
        )


def test_verdicts_of_a_run_are_printed_and_are_rows_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(tmp_path / "run", ["method=fmsd"], 0)
    assert run_verdicts(run, run, run.record()["stamps"]) is None
    print_verdicts(None, run.folder)
    assert "has no predictions of a validation split" in capsys.readouterr().out
    run.write_table(VALIDATION, frames("dfdc", (), 7))
    verdicts = run_verdicts(run, run, run.record()["stamps"])
    assert verdicts is not None
    assert verdicts["dataset"].unique(maintain_order=True).to_list() == ["ff", "celeb"]
    print_verdicts(verdicts, run.folder)
    printed = capsys.readouterr().out
    first = verdicts.row(2, named=True)  # 12 real validation videos are too few for the others
    assert "fpr10: of the 12 real validation videos at most 10 % were called fake;" in printed
    assert "fpr1 and fpr5 need 100 and 20 real validation videos; there are 12" in printed
    assert printed.count("fpr10 ") == 2
    assert "fpr5 " not in printed.partition("\nfpr10:")[0]
    assert f"{100 * first['true_positive_rate']:.1f} % [" in printed
    with write_document("evaluate") as document:
        print_verdicts(verdicts, run.folder)
        document.exit_code = 0
    assert json.loads(capsys.readouterr().out)["tables"]["verdicts"] == verdicts.to_dicts()


def test_without_a_threshold_a_sentence_stands_for_the_verdicts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    validation = frames("ff", (), 5)
    verdicts = count_verdicts(validation, video_points(validation))
    print_verdicts(verdicts.with_columns(validation_reals=pl.lit(2)), "run")
    assert capsys.readouterr().out == (
        "There are no verdicts on videos: fpr1, fpr5 and fpr10 need 100, 20 and 10 real validation "
        "videos; there are 2\n"
    )
    print_verdicts(verdicts.with_columns(validation_reals=pl.lit(100)), "run")
    printed = capsys.readouterr().out
    assert "fpr5: of the 100 real validation videos at most 5 %" in printed
    assert all(f"{name} " in printed for name in RATES)
    assert "need" not in printed
