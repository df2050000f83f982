"""Runs that log, and a user without a key of Weights & Biases."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import wandb as client
from wandb.proto import wandb_internal_pb2

from fmsd.runs.folder import Run


@contextlib.contextmanager
def user_without_key(home: Path) -> Iterator[Path]:
    """A user without a key of Weights & Biases, and the user's home."""
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


def store(folder: Path) -> Any:
    """What MLflow itself reads from a folder's store."""
    from mlflow.tracking import (
        MlflowClient,
    )  # after our own module, which switches its reports of use off

    return MlflowClient(f"sqlite:///{folder}/mlflow/mlflow.db")
