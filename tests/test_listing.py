"""The runs below a folder: what lies in the parts of a run and in a logger's store is none."""

import json
from pathlib import Path

import pytest

from fmsd.errors import InputError
from fmsd.runs.listing import recorded_runs, run_folders
from fmsd.tasks.report import report
from tests.runs import evaluation, finished


def copies(runs: Path) -> list[Path]:
    """Copies of a run's files where loggers keep them."""
    places = [runs / "mlflow/artifacts/0a/artifacts", runs / "a/mlflow/artifacts/0b/artifacts"]
    places += [runs / "a/wandb/run/files", runs / "a/evaluations/later/predictions/x"]
    for place in places:
        place.mkdir(parents=True)
        for name in ("run.json", "results.csv"):
            (place / name).write_bytes((runs / "a" / name).read_bytes())
    for store in (runs / "mlflow", runs / "a" / "mlflow"):
        (store / "mlflow.db").touch()
    return places


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs, an evaluation of the first, and copies that loggers keep."""
    finished(tmp_path / "runs" / "a", ["method=a"], 0)
    finished(tmp_path / "runs" / "mlflow_trial" / "b", ["method=b"], 0)
    evaluation(tmp_path / "runs" / "a", "later", "dfdc", 1, 1_000)
    assert copies(tmp_path / "runs")
    return tmp_path / "runs"


def test_copies_of_a_run_that_loggers_keep_are_no_runs(runs: Path) -> None:
    later = runs / "a/evaluations/later"
    assert run_folders(runs, "run.json") == [runs / "a", later, runs / "mlflow_trial/b"]
    assert run_folders(runs / "a", "run.json") == [runs / "a", later]
    assert run_folders(runs / "gone", "run.json") == []
    assert set(report(runs)["run"]) == {"a", "b"}


def test_a_folder_of_runs_may_have_the_name_of_a_part_of_a_run(runs: Path) -> None:
    for name in ("logs", "predictions", "mlflow"):
        place = finished(runs.parent / "all" / name / "c", [f"method={name}"], 0).folder
        assert run_folders(runs.parent / "all", "run.json")[-1] == place
        (runs.parent / "all" / name).rename(runs.parent / f"kept_{name}")


def test_one_run_or_one_folder_of_runs_is_given(runs: Path, tmp_path: Path) -> None:
    assert [run.folder for run in recorded_runs(runs / "a", None, "cite")] == [
        runs / "a",
        runs / "a/evaluations/later",
    ]
    assert len(recorded_runs(None, runs, "cite")) == 3
    for one, all_of in ((None, None), (runs / "a", runs)):
        with pytest.raises(InputError, match=r"which runs to cite.*give either run=RUN or runs="):
            recorded_runs(one, all_of, "cite")
    with pytest.raises(InputError, match=r"There is no run below .*gone"):
        recorded_runs(None, tmp_path / "gone", "cite")
    (tmp_path / "config.yaml").write_text(json.dumps({"seed": 0}))
    with pytest.raises(InputError, match=r"not finished, so there is nothing to cite yet; go on"):
        recorded_runs(tmp_path, None, "cite")
