"""What loggers are given, read back from what they wrote and compared with the run's own files; and
the view that is built from it.
"""

import base64
import functools
import hashlib
import json
import logging
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import wandb as client
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.runs import configuration
from fmsd.runs.folder import Run
from fmsd.tracking import mlflow, publish, tensorboard, wandb
from fmsd.tracking.dashboard import build_workspace, dashboard
from fmsd.tracking.values import stamps_by_dataset
from tests.conftest import grow_tree

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user without a key of Weights & Biases, and the user's home."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "WANDB_API_KEY",
            "WANDB_MODE",
            "WANDB_BASE_URL",
            "WANDB_PROJECT",
            "NETRC",
            "MLFLOW_DISABLE_TELEMETRY",
        ):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(home))
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(home / name))
        client.teardown()
        yield home
        client.teardown()


@pytest.fixture(scope="module")
def story(nobody: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A sweep of one job with all loggers, tested on one dataset, and then evaluated on another one
    and under corruptions.

    The store of MLflow cannot take artifacts while the job trains.
    """
    sweep, said = tmp_path_factory.mktemp("story") / "first_sweep", []
    (sweep / "mlflow").mkdir(parents=True)
    (sweep / "mlflow" / "artifacts").touch()
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("fmsd").addHandler(handler)
    data = (
        *("data=table", f"data.root={listed(sweep.parent / 'data')}", "data.train=[near]"),
        "trainer=smoke",
    )
    words = (
        "data.test=[near]",
        "method=fmsd",
        "backbone=demo_vit",
        "logger=[wandb,tensorboard,mlflow]",
    )
    assert main(["train", "-m", *data, *words, f"hydra.sweep.dir={sweep}"]) == 0
    (folder,) = (path.parent for path in sweep.glob("*/results.csv"))
    trained, first = said.copy(), json.loads((folder / "published.json").read_text())
    (sweep / "mlflow" / "artifacts").unlink()
    evaluation = folder / "evaluations" / "later"
    more = (
        "data.test=[near,far]",
        "corrupt=[jpeg,blur]",
        "severities=[1,3]",
        f"hydra.run.dir={evaluation}",
    )
    assert main(["evaluate", f"run={folder}", *data, *more]) == 0
    logging.getLogger("fmsd").removeHandler(handler)
    return SimpleNamespace(
        sweep=sweep,
        run=Run(folder),
        evaluation=Run(evaluation),
        trained=trained,
        said=said,
        first=first,
    )


def listed(root: Path) -> Path:
    """Images of two datasets and a table of them; one is for testing only."""
    lines = ["path,label,dataset,domain,video,index,split"]
    for dataset, splits in (("near", ("train", "val", "test")), ("far", ("test",))):
        tree = grow_tree(root / dataset, splits)
        for path in sorted(tree.rglob("*.png")):
            split, domain, video = path.relative_to(tree).parts[:3]
            cells = (
                path.relative_to(root),
                int(domain != "real"),
                dataset,
                domain,
                f"{dataset}/{domain}/{video}",
                path.stem,
                split,
            )
            lines.append(",".join(map(str, cells)))
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


def expected(*runs: Run) -> dict[str, float]:
    """The numbers of the runs' result tables by the names that loggers know them by."""
    rows = (
        row for run in reversed(runs) for row in pl.read_csv(run.folder / "results.csv").to_dicts()
    )
    return {f"test/{row['dataset']}/{row['level']}_{row['metric']}": row["value"] for row in rows}


def severities(evaluation: Run) -> dict[tuple[str, int], float]:
    """Naively: the mean of the video AUCs of a dataset under all corruptions of a severity, and
    each of them.
    """
    found: dict[tuple[str, int], float] = {}
    rows = (
        pl.read_csv(evaluation.folder / "corruptions.csv")
        .filter(level="video", metric="auc")
        .to_dicts()
    )
    for dataset in {row["dataset"] for row in rows}:
        for severity in (0, 1, 3):
            own = {
                row["corruption"]: row["value"]
                for row in rows
                if (row["dataset"], row["severity"]) == (dataset, severity)
            }
            for corruption in ("jpeg", "blur"):
                found[f"corruptions/{dataset}/{corruption}/video_auc", severity] = own.get(
                    corruption, own.get("none", np.nan)
                )
            found[f"corruptions/{dataset}/mean/video_auc", severity] = float(
                np.mean(list(own.values()))
            )
    return found


def records(file: Path) -> Iterator[Any]:
    """The records of a file: blocks of 32 KiB hold parts of them, each after a checksum, its length
    and kind (whole, first, middle, last).
    """
    content, place, parts = file.read_bytes(), 7, []
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []


class Offline:
    """What one offline file says."""

    def __init__(self, file: Path) -> None:
        self.files = file.parent / "files"
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.artifacts: dict[str, Any] = {}
        for record in records(file):
            match record.WhichOneof("record_type"):
                case "run":
                    self.run = record.run
                case "config":
                    self.config |= self.items(record.config.update)
                case "summary":
                    self.summary |= self.items(record.summary.update)
                case "history":
                    self.history.append(self.items(record.history.item))
                case "artifact":
                    self.artifacts[record.artifact.type] = record.artifact

    @staticmethod
    def items(parts: Any) -> dict[str, Any]:
        return {
            part.key or "|".join(part.nested_key): json.loads(part.value_json) for part in parts
        }

    def table(self, name: str) -> pl.DataFrame:
        content = json.loads((self.files / self.summary[f"{name}|path"]).read_text())
        return pl.DataFrame(content["data"], schema=content["columns"], orient="row")


def offline(run: Run) -> list[Offline]:
    """The offline files, once wandb's own process has written all of them."""
    for _ in range(50):
        found = [
            Offline(file) for file in sorted((run.folder / "wandb").glob("offline-run-*/*.wandb"))
        ]
        if all(hasattr(one, "run") for one in found):
            break
        time.sleep(0.2)
    return found


def test_wandb_holds_the_numbers_of_the_run_its_tables_curves_pictures_and_adapter(
    story: SimpleNamespace,
) -> None:
    board, run = offline(story.run)[0], story.run
    numbers = expected(run)
    assert len(numbers) > 20
    assert {name: board.summary[name] for name in numbers} == pytest.approx(numbers)
    assert any("train/loss" in row for row in board.history)
    assert [row["val/video_auc"] for row in board.history if "val/video_auc" in row]
    record = run.record()
    costs = {
        "cost/trainable": record["trainable"],
        "cost/parameters": record["parameters"],
        "cost/minutes": record["seconds"] / 60,
    }
    assert {name: board.summary[name] for name in costs} == pytest.approx(costs)
    assert board.config["choices"]["method"] == "fmsd"
    assert board.config["data"]["test"] == ["near"]
    assert (board.run.run_group, board.run.project, board.run.display_name) == (
        "first_sweep",
        "fmsd",
        run.folder.name,
    )
    assert set(board.run.tags) == {"fmsd", "table", "demo_vit", "erm"}
    for stamp, facts in record["stamps"].items():
        assert board.summary[f"stamp/{facts['dataset']}/{facts['level']}"] == stamp
    table = board.table("results")
    rows = pl.read_csv(run.folder / "results.csv")
    assert table.columns == rows.columns
    assert table["value"].to_list() == pytest.approx(rows["value"].to_list())
    assert table["stamp"].to_list() == rows["stamp"].to_list()
    assert {path.stem for path in run.folder.glob("*.png")} == {
        name.partition("|")[0] for name in board.summary if name.endswith("|format")
    } - {"results"}
    assert (board.files / board.summary["mask|path"]).read_bytes() == (
        run.folder / "mask.png"
    ).read_bytes()
    digests = {entry.path: entry.digest for entry in board.artifacts["adapter"].manifest.contents}
    files = [run.folder / name for name in ("adapter.json", "adapter.safetensors")]
    assert digests == {
        file.name: base64.b64encode(hashlib.md5(file.read_bytes()).digest()).decode()
        for file in files
    }


def test_the_areas_under_the_roc_curves_are_the_aucs(story: SimpleNamespace) -> None:
    first, second = offline(story.run)
    numbers = expected(story.run, story.evaluation)
    for board, dataset in ((first, "near"), (second, "far")):
        curve = board.table(f"roc/{dataset}_table")
        assert set(curve["level"]) == {"frame", "video"}
        for level in ("frame", "video"):
            own = curve.filter(level=level)
            area = np.trapezoid(own["true_positive_rate"], own["false_positive_rate"])
            assert area == pytest.approx(numbers[f"test/{dataset}/{level}_auc"], abs=2e-3)


def test_an_evaluation_adds_what_is_new_to_the_run_itself(story: SimpleNamespace) -> None:
    first, second = offline(story.run)
    assert first.run.run_id == second.run.run_id
    new = {
        name: value
        for name, value in expected(story.evaluation).items()
        if name.startswith("test/far/")
    }
    assert {
        name: value for name, value in second.summary.items() if name.startswith("test/")
    } == pytest.approx(new)
    points = {
        (name, row[wandb.SEVERITY]): row[name]
        for row in second.history
        for name in row
        if name.endswith("/video_auc") and "corruptions/" in name
    }
    assert points == pytest.approx(severities(story.evaluation))
    assert "results|path" not in second.summary


def test_tensorboard_holds_the_same_numbers(story: SimpleNamespace) -> None:
    board = EventAccumulator(str(story.run.folder / "tensorboard"), size_guidance={"scalars": 0})
    board.Reload()
    tags = board.Tags()
    found = {
        name: board.Scalars(name)[-1].value for name in tags["scalars"] if name.startswith("test/")
    }
    assert found == pytest.approx(
        expected(story.run)
        | {name: value for name, value in expected(story.evaluation).items() if "/far/" in name},
        abs=1e-6,
    )
    assert {"train/loss", "val/video_auc", "cost/trainable"} <= set(tags["scalars"])
    points = {
        (name, event.step): event.value
        for name in tags["scalars"]
        if name.startswith("corruptions/")
        for event in board.Scalars(name)
    }
    assert points == pytest.approx(severities(story.evaluation), abs=1e-6)
    assert {"mask", "evaluations/later/robustness"} <= set(tags["images"])
    assert {"results/text_summary", "evaluations/later/results/text_summary"} <= set(
        tags["tensors"]
    )


def store(folder: Path) -> Any:
    """What MLflow itself reads from a folder's store."""
    from mlflow.tracking import (
        MlflowClient,
    )  # after our own module, which switches its reports of use off

    return MlflowClient(f"sqlite:///{folder}/mlflow/mlflow.db")


def test_mlflow_holds_the_same_numbers_in_one_store_of_the_sweep(story: SimpleNamespace) -> None:
    board = store(story.sweep)
    experiment = board.get_experiment_by_name("fmsd")
    assert experiment is not None
    (run,) = board.search_runs([experiment.experiment_id])
    assert {
        name: value for name, value in run.data.metrics.items() if name.startswith("test/")
    } == pytest.approx(
        expected(story.run)
        | {name: value for name, value in expected(story.evaluation).items() if "/far/" in name}
    )
    assert {"train/loss", "val/video_auc", "cost/trainable"} <= set(run.data.metrics)
    names = [name for name in run.data.metrics if name.startswith("corruptions/")]
    points = {
        (name, point.step): point.value
        for name in names
        for point in board.get_metric_history(run.info.run_id, name)
    }
    assert points == pytest.approx(severities(story.evaluation))
    assert run.data.params["choices.method"] == "fmsd"
    assert {
        "method": "fmsd",
        "data": "table",
        "wrapper": "erm",
        "group": "first_sweep",
    }.items() <= run.data.tags.items()
    assert (run.info.run_name, run.info.status) == (story.run.folder.name, "FINISHED")
    assert not (story.run.folder / "mlflow").exists()
    from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY

    assert MLFLOW_DISABLE_TELEMETRY.get()


def test_a_logger_that_fails_costs_nothing_but_a_sentence_and_can_be_given_the_results_again(
    story: SimpleNamespace,
) -> None:
    (told,) = [line for line in story.trained if "did not take" in line]
    assert told.startswith("MLFlow did not take all results (")
    assert told.endswith(f"); they lie in {story.run.folder}.")
    assert not [line for line in story.said[len(story.trained) :] if "did not take" in line]
    assert any(
        f"upload later with: wandb sync {story.run.folder}/wandb/offline-run-*" in line
        for line in story.trained
    )
    assert story.first.keys() == {"wandb", "tensorboard"}
    assert all(part["stamps"].keys() == {"near"} for part in story.first.values())
    later = json.loads((story.run.folder / "published.json").read_text())
    assert later.keys() == {"wandb", "tensorboard", "mlflow"}
    assert later["mlflow"] == later["wandb"]
    assert later["mlflow"]["stamps"].keys() == {"near", "far"}
    logger = mlflow.build_mlflow_logger(story.run.folder)
    board = logger.experiment
    assert len(board.search_runs([str(logger.experiment_id)])) == 1
    assert {"adapter.safetensors", "adapter.json", "results.csv", "mask.png", "evaluations"} <= {
        file.path for file in board.list_artifacts(str(logger.run_id))
    }
    assert "evaluations/later/corruptions.csv" in {
        file.path for file in board.list_artifacts(str(logger.run_id), "evaluations/later")
    }


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


def begun(folder: Path) -> Path:
    """The folder of a run that has just begun."""
    choices = {
        "method": "lora",
        "data": "ff++",
        "backbone": "vit_tiny",
        "wrapper": "erm",
        "trainer": "smoke",
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        json.dumps({"choices": choices, "data": {"roots": {"ff++": "/ff"}}})
    )
    return folder


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


def kept(
    folder: Path,
    aucs: dict[str, tuple[float, str]],
    corruptions: dict[int, float] | None = None,
    **record: Any,
) -> Run:
    """The folder of a run or an evaluation: video AUC and stamp of every dataset, and AUCs under
    blur by severity.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (name, "video", "auc", value, 8, 4, 2, "iid", "fmsd", stamp)
        for name, (value, stamp) in aucs.items()
    ]
    columns = (
        "dataset",
        "level",
        "metric",
        "value",
        "n_frames",
        "n_videos",
        "n_real_videos",
        "selection",
        "protocol",
        "stamp",
    )
    table = pl.DataFrame(rows, schema=columns, orient="row")
    if corruptions:
        parts = [
            table.with_columns(
                value=pl.lit(value),
                corruption=pl.lit("blur" if severity else "none"),
                severity=pl.lit(severity),
            )
            for severity, value in corruptions.items()
        ]
        (folder / "corruptions.csv").write_text(pl.concat(parts).write_csv())
    run = Run(folder)
    run.write_record({"stamps": {}} | record)
    run.write_results(table)
    return run


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


def spec(keys: set[str]) -> dict[str, Any]:
    """A view as it is saved."""
    return json.loads(
        build_workspace("me", "fmsd", "all", keys)
        ._to_model()
        .spec.model_dump_json(by_alias=True, exclude_none=True)
    )["section"]


def test_the_dashboard_shows_what_is_logged(story: SimpleNamespace) -> None:
    boards = offline(story.run)
    keys = {name for board in boards for name in board.summary}
    section = spec(keys)
    panels = {part["name"]: part["panels"] for part in section["panelBankConfig"]["sections"]}
    assert list(panels) == ["Datasets", "Results", "Cost", "Robustness", "Training"]
    aucs = ["test/far/video_auc", "test/near/video_auc"]
    bars = [panel["config"] for panel in panels["Datasets"]]
    assert [bar["metrics"] for bar in bars] == [aucs, *([auc] for auc in aucs)]
    lines = [panel["config"] for name in ("Robustness", "Training") for panel in panels[name]]
    logged = keys | {name for board in boards for row in board.history for name in row}
    for panel in (*bars, *lines):
        assert {*panel["metrics"], *([panel["xAxis"]] if "xAxis" in panel else [])} <= logged
        assert panel["groupBy"] == "variant.value"
    assert lines[0]["xAxis"] == wandb.SEVERITY
    assert [(panel["config"]["xAxis"], panel["config"]["yAxis"]) for panel in panels["Cost"]] == [
        ("summary:cost/trainable", f"summary:{auc}") for auc in aucs
    ]
    assert '"val": "results"' in json.dumps(panels["Results"])
    assert section["runSets"][0]["grouping"] == [{"section": "config", "name": "variant.value"}]
    assert boards[0].config["variant"] == "fmsd, erm, demo_vit, table"
    assert "Robustness" not in [
        part["name"] for part in spec(set(aucs))["panelBankConfig"]["sections"]
    ]


RUNS = [
    {"test/ff++/video_auc": 0.9, "cost/trainable": 10},
    {"test/celebdf_v2/video_auc": 0.8, "corruptions/ff++/mean/video_auc": 0.7},
]


class Service(BaseHTTPRequestHandler):
    """As much of the service as a view needs: who asks, what the runs have logged, and a view to
    keep.
    """

    saved: list[dict[str, Any]]
    runs: list[dict[str, float]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        query = json.loads(body) if self.path == "/graphql" else {"query": ""}
        answer = json.dumps({"data": self.answer(query["query"], query.get("variables"))}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def answer(self, query: str, variables: Any) -> dict[str, Any]:
        if "upsertView" in query:
            self.saved.append(variables)
            return {"upsertView": {"view": {"id": "1", "name": "nw-abc-v"}, "inserted": True}}
        if "query Runs" in query:
            edges = [
                {"node": self.run(place, numbers), "cursor": str(place)}
                for place, numbers in enumerate(self.runs)
            ]
            found = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
            return {
                "project": {
                    "internalId": "1",
                    "runCount": len(edges),
                    "readOnly": False,
                    "runs": found,
                }
            }
        return {
            "viewer": {
                "id": "1",
                "entity": "me",
                "username": "me",
                "email": "",
                "flags": "{}",
                "teams": {"edges": []},
            }
        }

    @staticmethod
    def run(place: int, numbers: dict[str, float]) -> dict[str, Any]:
        texts = {"config": "{}", "systemMetrics": "{}", "summaryMetrics": json.dumps(numbers)}
        names = {
            "id": f"{place}",
            "name": f"{place}",
            "displayName": f"{place}",
            "state": "finished",
            "projectId": "1",
            "tags": [],
        }
        empty = ("sweepName", "group", "jobType", "commit", "description", "notes", "historyKeys")
        times = dict.fromkeys(("createdAt", "heartbeatAt"), "2026-01-01T00:00:00Z")
        user = {"name": "me", "username": "me"}
        return {
            **texts,
            **names,
            **times,
            **dict.fromkeys(empty),
            "readOnly": False,
            "historyLineCount": 1,
            "user": user,
        }

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the library
        """Says nothing."""


@pytest.fixture
def service(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Service]]:
    """A service that answers on this machine, and a key for it."""
    handler = type("Answering", (Service,), {"saved": [], "runs": RUNS})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        client.teardown()
        yield handler
        client.teardown()
        server.shutdown()
        thread.join()


def test_the_dashboard_is_saved(service: type[Service], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "entity=me", "project=faces", "name=mine"]) == 0
    (view,) = service.saved
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "faces", "mine")
    section = json.loads(view["spec"])["section"]
    bars = section["panelBankConfig"]["sections"][0]["panels"]
    assert bars[0]["config"]["metrics"] == ["test/celebdf_v2/video_auc", "test/ff++/video_auc"]
    assert "The dashboard lies at http://127.0.0.1:" in capsys.readouterr().out


def test_a_project_without_results_has_no_dashboard(
    service: type[Service], capsys: pytest.CaptureFixture[str]
) -> None:
    service.runs = [{"train/loss": 1.0}]
    assert main(["dashboard", "entity=me"]) == 2
    assert (
        "No run in me/fmsd has logged a result; train with logger=wandb" in capsys.readouterr().err
    )
    assert service.saved == []


def test_without_a_key_there_is_no_dashboard(
    nobody: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard", "entity=me"]) == 2
    assert (
        "where nobody is logged in; run wandb login, or set WANDB_API_KEY."
        in capsys.readouterr().err
    )
