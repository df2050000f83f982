"""A report believes predictions: what was edited, copied, interrupted or is constant."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.metrics.table import compute_results
from fmsd.metrics.threshold import best_thresholds
from fmsd.runs.folder import VALIDATION, Run
from fmsd.tasks.report import report
from tests.runs import CORRUPTIONS, evaluation, finished, frames, written

METRICS = ["auc", "ap", "eer", "acc", "bacc", "tpr_0.1", "tpr_1", "tpr_5", "brier", "ece"]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of one method, and one of another."""
    for seed in (0, 1):
        finished(tmp_path / "runs" / f"fmsd{seed}", ["method=fmsd"], seed)
    finished(tmp_path / "runs" / "lora", ["method=lora"], 0, shift=0.5)
    return tmp_path / "runs"


def edited(run: Path, column: str, value: object, **place: str) -> None:
    """Changes one column of some rows of a run's results."""
    table = pl.read_csv(run / "results.csv")
    chosen = pl.all_horizontal(pl.col(name) == text for name, text in place.items())
    table.with_columns(
        pl.when(chosen).then(pl.lit(value)).otherwise(column).alias(column)
    ).write_csv(run / "results.csv")


@pytest.mark.parametrize("metric", METRICS)
def test_an_edited_value_is_named_whatever_is_reported(
    runs: Path, tmp_path: Path, metric: str
) -> None:
    place = {"dataset": "celeb", "level": "video", "metric": metric}
    right = Run(runs / "lora").results().filter(**place)["value"].item()
    edited(runs / "lora", "value", right + 0.00001, **place)
    for reported, out in (("auc", None), (metric, None), ("ap", tmp_path / "out")):
        with pytest.raises(InputError) as refused:
            report(runs, reported, out=out, resamples=0)
        assert (
            f"{runs / 'lora' / 'results.csv'} has the value {right + 0.00001:.5f} (dataset celeb, "
            f"level video, metric {metric}), and {runs / 'lora' / 'predictions' / 'celeb.parquet'} "
            f"gives {right:.5f}"
        ) in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("n_videos", 1000, "the n_videos 1000 (dataset ff, level frame, metric auc), and"),
        ("n_real_videos", 9, "the n_real_videos 9"),
        ("selection", "last", "the selection last"),
        ("protocol", "other", "the protocol other"),
    ],
)
def test_every_column_follows_from_the_test(
    runs: Path, column: str, value: object, shown: str
) -> None:
    edited(runs / "lora", column, value, dataset="ff", metric="auc")
    with pytest.raises(InputError) as refused:
        report(runs)
    assert f"results.csv has {shown}" in str(refused.value)


def test_rows_are_neither_lacking_nor_invented(runs: Path) -> None:
    path = runs / "lora" / "results.csv"
    whole = pl.read_csv(path)
    one = (pl.col("dataset") == "ff") & (pl.col("level") == "frame") & (pl.col("metric") == "eer")
    whole.filter(~one).write_csv(path)
    with pytest.raises(InputError, match=r"lacks a row \(dataset ff, level frame, metric eer\)"):
        report(runs)
    pl.concat([whole, whole.filter(one)]).write_csv(path)
    with pytest.raises(InputError, match=r"has a row \(dataset ff, level frame, metric eer\)"):
        report(runs)
    whole.filter(pl.col("metric") != "eer").write_csv(path)  # as an older version wrote it
    values = report(runs, "eer").filter(run="lora", dataset="ff", metric="eer")["value"]
    assert values.to_list() == whole.filter(dataset="ff", metric="eer")["value"].to_list()


def test_predictions_of_another_run_are_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copy(runs / "fmsd0/predictions/ff.parquet", runs / "lora/predictions/ff.parquet")
    for by, out in (("dataset", None), ("domain", None), ("dataset", tmp_path / "out")):
        with pytest.raises(InputError, match=r"results.csv has the value .* \(dataset ff, level"):
            report(runs, by=by, out=out, resamples=0)


@pytest.mark.parametrize("by", ["dataset", "domain"])
def test_predictions_of_other_frames_are_refused(runs: Path, by: str) -> None:
    path = runs / "lora" / "predictions" / "ff.parquet"
    whole = pl.read_parquet(path)
    for table in (
        whole.head(-1),
        whole.with_columns(dataset=pl.lit("celeb")),
        whole.with_columns(domain=pl.col("domain").replace("swap", "puppet")),
        whole.with_columns(label=1 - pl.col("label")),
    ):
        table.write_parquet(path)
        with pytest.raises(InputError, match=r"frames in .*ff\.parquet are not those that the run"):
            report(runs, by=by)
    for table in (
        whole.with_columns(logit=pl.when(pl.col("index") > 0).then("logit")),
        whole.with_columns(logit=pl.lit(float("inf"))),
        whole.clear(),
    ):
        table.write_parquet(path)
        with pytest.raises(InputError, match=r"ff\.parquet is damaged: it"):
            report(runs, by=by)


def with_thresholds(run: Run) -> dict[str, float]:
    """Gives a run a validation split, and results at its thresholds."""
    validation = frames("dfdc", (), 7)
    thresholds = best_thresholds(validation)
    run.write_table(VALIDATION, validation)
    run.write_record(run.record() | {"thresholds": thresholds})
    tests = [pl.read_parquet(path) for path in sorted((run.folder / "predictions").iterdir())]
    stamps = run.results().select("dataset", "level", "stamp").unique()
    table = compute_results(pl.concat(tests), "iid", thresholds=thresholds)
    run.write_results(table.join(stamps, on=["dataset", "level"], maintain_order="left"))
    return thresholds


def test_an_edited_threshold_is_named(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(runs / "lora")
    right = with_thresholds(run)
    value = run.results().filter(dataset="ff", level="video", metric="bacc_val")["value"].item()
    tidy = report(runs, "bacc_val").filter(run="lora", dataset="ff", level="video")
    assert tidy.filter(metric="bacc_val")["value"].item() == value
    run.write_record(run.record() | {"thresholds": right | {"video": right["video"] + 0.002}})
    with pytest.raises(InputError) as refused:
        report(runs)
    assert (
        f"run.json has the threshold {right['video'] + 0.002:.4f} at video level, which is "
        f"{right['video']:.4f} by {run.folder / VALIDATION}"
    ) in str(refused.value)
    run.write_record(run.record() | {"thresholds": {"video": right["video"]}})
    with pytest.raises(InputError, match="not a number for each of frame, video"):
        report(runs)
    run.write_record(run.record() | {"thresholds": right})
    (run.folder / VALIDATION).unlink()
    report(runs)
    assert "The thresholds of" in caplog.text
    assert "cannot be checked" in caplog.text


def test_an_edited_curve_of_corruptions_is_named(runs: Path, tmp_path: Path) -> None:
    found = evaluation(runs / "lora", "stress", "celeb", 3, 5_000, corruptions=CORRUPTIONS)
    path = found.folder / "corruptions.csv"
    aucs = (pl.col("level") == "video") & (pl.col("metric") == "auc")
    place = aucs & (pl.col("corruption") == "blur") & (pl.col("severity") == 3)
    table = pl.read_csv(path)
    table.with_columns(value=pl.when(place).then(0.999).otherwise("value")).write_csv(path)
    with pytest.raises(InputError) as refused:
        report(runs, out=tmp_path / "out", resamples=0)
    assert f"{path} has the value 0.9990 (dataset celeb, level video, metric auc)" in str(
        refused.value
    )
    assert "predictions/blur_3/celeb.parquet gives" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_is_left_out_as_a_row_and_as_a_seed(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, seed in (("fmsd0", 7), ("lora", 8)):
        run = Run(runs / f"cut{seed}")
        settings = {"data": {"batch_size": 8}, "method": {"rank": seed}}
        (runs / name / "config.yaml").write_text(json.dumps(settings | {"method": {"rank": 0}}))
        finished(run.folder, [f"method={name.strip('0')}"], seed, finished=False)
        (run.folder / "config.yaml").write_text(json.dumps(settings))
        evaluation(run.folder, "now", "dfdc", 1, 1_000)
        (run.folder / "results.csv").unlink()
        later = Run(run.folder / "evaluations" / "now")
        record = later.record()
        if seed == 8:  # an evaluation that does not say what it tested
            del record["finished"]
        later.write_record(record)
    tidy = report(runs)
    assert tidy["seed"].unique().sort().to_list() == [0, 1]
    assert set(tidy["dataset"]) == {"ff", "celeb"}
    assert (
        f"Tests of interrupted trainings are left out (2, such as {runs}/cut7/evaluations/now): "
        "finish the training with fmsd train resume=RUN, then test it again."
    ) in caplog.messages
    for name in ("fmsd0", "fmsd1", "lora"):
        shutil.rmtree(runs / name)
    with pytest.raises(InputError, match="There is no finished run below"):
        report(runs)


def test_runs_without_results_are_named(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    report(runs)
    assert not caplog.messages
    for name in ("cut", "lost"):  # before and after its weights were chosen
        (runs / name / "checkpoints").mkdir(parents=True)
        (runs / name / "config.yaml").write_text("seed: 0")
    Run(runs / "lost").write_record({"finished": False})
    (runs / "refused").mkdir()
    (runs / "refused" / "error.txt").write_text("There is no method=fmds.")
    (runs / "own").mkdir()
    (runs / "own" / "config.yaml").write_text("a file of another program")
    report(runs)
    assert caplog.messages == [
        f"3 runs below {runs} have no results and are left out: cut, lost, refused (failed, see "
        "its error.txt); give their command again, or go on with fmsd train resume=RUN."
    ]
    for number in range(4):
        (runs / f"more{number}").mkdir()
        (runs / f"more{number}" / "error.txt").touch()
    report(runs)
    assert "7 runs below" in caplog.messages[-1]
    assert "more2 (failed, see its error.txt) and 2 more; give" in caplog.messages[-1]


def test_a_copy_of_a_run_is_no_other_seed(
    runs: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "lora", runs / "lora_copy")
    copy = Run(runs / "lora_copy")
    copy.write_record(copy.record() | {"seed": 5, "overrides": ["method=lora", "seed=5"]})
    tidy = report(runs)
    assert tidy.filter(run="lora")["seed"].unique().to_list() == [0]
    assert (
        f"{runs / 'lora_copy'} is left out: its predictions are those of {runs / 'lora'}, so it is "
        "a copy and no other seed."
    ) in caplog.messages
    shown = [line for line in capsys.readouterr().out.splitlines() if "lora" in line[:20]]
    assert len(shown) == 2
    assert "±" not in "".join(shown)


def test_constant_scores_are_chance_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in (0, 1):
        tests = {"ff": frames("ff", (), 0).with_columns(logit=pl.lit(0.1, pl.Float32))}
        record = {"overrides": ["method=a", f"seed={seed}"], "seed": seed}
        written(Run(tmp_path / f"a{seed}"), tests, {}, record)
    tidy = report(tmp_path)
    assert tidy.filter(metric="auc")["value"].to_list() == [0.5] * 4
    assert (
        f"All frames of ff in {tmp_path / 'a0'}, and of 1 other test, have the same score, so the "
        "AUC is 0.5: look whether the images are all alike (fmsd doctor), and whether the training "
        "failed (logs/metrics.csv)."
    ) in caplog.messages
    assert "is a copy" not in caplog.text


def test_brackets_and_stars_in_names_are_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, shift in (("run1", 3.0), ("run[1]", 0.2), ("run*", 1.0)):
        finished(tmp_path / name, ["method=a"], 0, shift=shift)
        value = Run(tmp_path / name).results().filter(metric="auc", level="frame", dataset="ff")
        shown = f"{value['value'].item():.3f}"
        capsys.readouterr()
        assert main(["report", f"runs='{name}'", "metric=auc"]) == 0
        assert shown in capsys.readouterr().out.partition("AUC per video")[0]
