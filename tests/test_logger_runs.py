"""How loggers identify a run, and where MLflow's store lies."""

import functools
import json
import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmsd.errors import InputError
from fmsd.runs import configuration
from fmsd.runs.folder import Run
from fmsd.tracking import mlflow, publish, tensorboard, wandb
from fmsd.tracking.dashboard import dashboard
from fmsd.tracking.values import stamps_by_dataset
from tests.logged_runs import begun, kept, offline, store, user_without_key

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with user_without_key(tmp_path_factory.mktemp("home")) as home:
        yield home


def test_names_and_tags_of_a_run_that_stands_alone(nobody: Path, tmp_path: Path) -> None:
    folder = begun(tmp_path / "alone")
    for group in (None, "mine"):
        board = wandb.build_wandb_logger(folder, group=group, offline=True).experiment
        assert (board.group or None, board.name, board.tags) == (
            group,
            "alone",
            ("lora", "ff++", "vit_tiny", "erm"),
        )
        wandb.close()
    assert len({file.run.run_id for file in offline(Run(folder))}) == 1
    logger = mlflow.build_mlflow_logger(folder)
    publish.log_configuration([logger], folder)
    assert logger.experiment.get_run(str(logger.run_id)).data.params["data.roots.ffpp"] == "/ff"
    assert (folder / "mlflow" / "mlflow.db").is_file()
    assert [mlflow.mlflow_name(name) for name in ("test/ff++/video_tpr_0.1", "a[b]")] == [
        "test/ffpp/video_tpr_0.1",
        "a_b_",
    ]


def work(folder: Path) -> str:
    """A job of a sweep that logs much."""
    logger = mlflow.build_mlflow_logger(folder)
    publish.log_configuration([logger], folder)
    for step in range(20):
        logger.log_metrics({"train/loss": float(step)}, step)
    return str(logger.run_id)


def test_a_run_is_one_run_of_mlflow_wherever_it_lies(nobody: Path, tmp_path: Path) -> None:
    one, two = begun(tmp_path / 'a "b" ?c #d %20 é'), tmp_path / "moved"
    logger = mlflow.build_mlflow_logger(one)
    logger.log_metrics({"x": 1.0}, 0)
    assert (one / "mlflow" / "mlflow.db").is_file()
    one.rename(two)
    again = mlflow.build_mlflow_logger(two)
    assert again.run_id == logger.run_id
    assert len(again.experiment.search_runs([str(again.experiment_id)])) == 1
    elsewhere = mlflow.build_mlflow_logger(two, uri=f"sqlite:///{tmp_path}/other.db")
    assert elsewhere.run_id != logger.run_id


def test_a_store_of_mlflow_writes_no_artifacts_outside_its_folder(
    nobody: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.tracking import MlflowClient

    folder = begun(tmp_path / "run")
    logger = mlflow.build_mlflow_logger(folder)
    assert mlflow.foreign_artifact_uri(logger) is None
    assert (
        mlflow.foreign_artifact_uri(
            mlflow.build_mlflow_logger(folder, uri=f"sqlite:///{tmp_path}/other.db")
        )
        is None
    )
    MlflowClient(str(logger._tracking_uri)).create_experiment(
        "strange", artifact_location=(tmp_path / "precious").as_uri()
    )
    (folder / "mlflow.txt").unlink()
    strange = mlflow.build_mlflow_logger(folder, project="strange")
    assert str(mlflow.foreign_artifact_uri(strange)).startswith((tmp_path / "precious").as_uri())
    (folder / "a.png").write_bytes(b"picture")
    with caplog.at_level(logging.WARNING, "fmsd"):
        mlflow.log_artifacts(strange, Run(folder), {"ff": {"video": "x"}}, "")
    assert "only values are logged" in caplog.text
    assert not (tmp_path / "precious").exists()
    mlflow.log_artifacts(logger, Run(folder), {"ff": {"video": "x"}}, "")
    assert [path.name for path in (folder / "mlflow" / "artifacts").rglob("*.png")] == ["a.png"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, "lora, erm, vit_tiny, ff++"),
        ({"select": "oracle"}, "lora, erm, vit_tiny, ff++, oracle"),
        ({"select": "iid", "protocol": "dfb_compat"}, "lora, erm, vit_tiny, ff++, dfb_compat"),
    ],
)
def test_runs_that_are_averaged_have_one_variant(
    change: dict[str, str], name: str, tmp_path: Path
) -> None:
    settings = configuration.read_configuration(begun(tmp_path / "run"))
    settings["choices"]["protocol"] = change.pop("protocol", None)
    assert publish.variant_name(settings | change) == name


def test_a_log_has_numbers_of_one_stamp_of_a_dataset(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = kept(begun(tmp_path / "run"), {"near": (0.9, "aaa")}, steps=3)
    had = {"stamps": stamps_by_dataset(run.results()), "curves": {}}
    (run.folder / "published.json").write_text(json.dumps({"tensorboard": had}))

    def extend(
        name: str, aucs: dict[str, tuple[float, str]], corruptions: dict[int, float] | None = None
    ) -> list[str]:
        caplog.clear()
        publish.publish_evaluation(
            {"tensorboard": tensorboard.build_tensorboard_logger},
            run,
            kept(run.folder / "evaluations" / name, aucs, corruptions, run=str(run.folder)),
        )
        return [record.message for record in caplog.records if record.name.startswith("fmsd")]

    def shown() -> dict[str, list[tuple[int, float]]]:
        board = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"scalars": 0})
        board.Reload()
        return {
            name: [(event.step, round(event.value, 3)) for event in board.Scalars(name)]
            for name in board.Tags()["scalars"]
            if "/" in name and not name.startswith("hp")
        }

    assert extend("same", {"near": (0.9, "aaa")}) == []
    (told,) = extend("other", {"near": (0.8, "bbb")}, {0: 0.8, 1: 0.7})
    assert "near: aaa of videos there, bbb of videos here" in told
    assert f"{run.folder / 'evaluations' / 'other'} and in fmsd report." in told
    assert not (run.folder / "tensorboard").exists()
    assert extend("far", {"far": (0.7, "ccc"), "near": (0.9, "aaa")}, {0: 0.9, 1: 0.6}) == []
    before = shown()
    assert before["test/far/video_auc"] == [(3, 0.7)]
    assert "test/near/video_auc" not in before
    assert before["corruptions/near/blur/video_auc"] == [(0, 0.9), (1, 0.6)]
    (told,) = extend("far_again", {"far": (0.5, "ddd")})
    assert "far: ccc of videos there, ddd of videos here" in told
    assert extend("once_more", {"near": (0.9, "aaa")}, {0: 0.9, 1: 0.6}) == []
    assert shown() == before
    assert extend("stronger", {"near": (0.9, "aaa")}, {0: 0.9, 1: 0.6, 3: 0.5}) == []
    after = shown()
    assert after.pop("corruptions/near/blur/video_auc") == [(0, 0.9), (1, 0.6), (3, 0.5)]
    assert before.items() >= after.items()


def test_jobs_side_by_side_share_a_store(tmp_path: Path) -> None:
    folders = [begun(tmp_path / "sweep" / str(number)) for number in range(2)]
    (tmp_path / "sweep" / "multirun.yaml").touch()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        runs = list(pool.map(work, folders))
    board = store(tmp_path / "sweep")
    for run in runs:
        assert [point.value for point in board.get_metric_history(run, "train/loss")] == list(
            range(20)
        )


def test_a_sweep_is_found_above_the_folders_of_its_jobs(tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "seed0" / "swap"
    assert configuration.sweep_folder(folder) is None
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").touch()
    assert configuration.sweep_folder(folder) == tmp_path / "sweep"


@pytest.mark.parametrize(
    ("module", "factory", "extra"),
    [
        ("mlflow", mlflow.build_mlflow_logger, "mlflow"),
        ("sqlalchemy", mlflow.build_mlflow_logger, "mlflow"),
        ("tensorboard", tensorboard.build_tensorboard_logger, "tensorboard"),
        ("wandb_workspaces.workspaces", lambda _: dashboard("me"), "dashboard"),
    ],
)
def test_a_package_that_is_not_installed_is_named(
    module: str,
    factory: Callable[[Path], object],
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        InputError,
        match=rf"needs the package .*; install it with: pip install 'fmsd\[{extra}\]'\.$",
    ):
        factory(begun(tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_store_that_cannot_be_used_is_refused_before_training(tmp_path: Path) -> None:
    nowhere = functools.partial(mlflow.build_mlflow_logger, uri="nowhere://store")
    with pytest.raises(
        InputError,
        match=r"^The logger mlflow does not work \(.*\); "
        r"correct its settings, or train with logger=csv\.$",
    ):
        publish.build_loggers({"mlflow": nowhere}, begun(tmp_path / "run"))
