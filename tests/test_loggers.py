"""Loggers hold the results of the run's own files: read back from what they wrote."""

import base64
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmsd.cli.main import main
from fmsd.runs.folder import Run
from fmsd.tracking import mlflow, wandb
from fmsd.tracking.dashboard import build_workspace
from tests.conftest import grow_tree
from tests.logged_runs import offline, store, user_without_key

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with user_without_key(tmp_path_factory.mktemp("home")) as home:
        yield home


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
    for seed, dataset, splits in (
        (0, "near", ("train", "val", "test")),
        (1000, "far", ("test",)),
    ):
        tree = grow_tree(root / dataset, splits, seed=seed)
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
