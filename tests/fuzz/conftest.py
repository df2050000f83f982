"""A folder with data, runs and files of the user, which every case gets anew."""

import json
import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fmsd.runs.folder import Run
from fmsd.runs.validation_features import FEATURES
from tests.conftest import grow_tree
from tests.films import film, walk
from tests.fuzz.running import Snapshot, run, snapshot

MEMORY = 6 << 30
"""Bytes of address space that commands may take beside what the process has."""

DATA = ("data=folder", "data.root=tree")

TINY = (
    *DATA, "trainer=smoke", "backbone=demo_vit", "trainer.max_epochs=1",
    "trainer.limit_train_batches=1", "data.batch_size=2", "data.videos=1",
)  # fmt: skip
"""A training of one step."""


class Place:
    """The folder of the cases: `work` is theirs, `beside` is not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / "a" / "b" / "work"
        self.template = root.with_name("template")
        self.before: Snapshot = {}

    def freeze(self) -> None:
        """Keeps the folder as it is now, for every case."""
        shutil.copytree(self.root, self.template, symlinks=True)
        self.before = snapshot(self.root)

    def reset(self) -> None:
        """Puts the folder back."""
        if self.before and snapshot(self.root) == self.before:
            return
        shutil.rmtree(self.root)
        shutil.copytree(self.template, self.root, symlinks=True)
        self.before = snapshot(self.root)


@pytest.fixture(scope="session", autouse=True)
def _memory() -> None:
    """Limits the memory of this process, so that a case that takes too much fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    with (
        tempfile.TemporaryDirectory(prefix="fmsd-fuzz-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        place = Place(Path(folder, "root"))
        shut_out(patch, place.root)
        furnish(place)
        place.freeze()
        yield place


def shut_out(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Gives the commands a home folder of their own and no network."""
    home = root / "home"
    home.mkdir(parents=True)
    for name in (
        "XDG_CACHE_HOME",
        "MPLCONFIGDIR",
        "WANDB_CACHE_DIR",
        "WANDB_CONFIG_DIR",
        "HF_HOME",
    ):
        patch.setenv(name, str(root.with_name("cache") / name))
    for name, value in {"HOME": home, "WANDB_MODE": "offline", "HF_HUB_OFFLINE": 1}.items():
        patch.setenv(name, str(value))
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            raise OSError(101, "Network is unreachable")
        connect(self, address)

    patch.setattr(socket.socket, "connect", refuse)


def interrupt(run: Path, half: Path) -> None:
    """Copies a run as a signal before its last validation would have left it."""
    shutil.copytree(run, half)
    for name in ("results.csv", "results.md", "validation.parquet", FEATURES):
        (half / name).unlink()
    for name in ("predictions", "evaluations"):
        shutil.rmtree(half / name)
    Run(half).write_record({**Run(half).record(), "finished": False, "thresholds": None})


def furnish(place: Place) -> None:
    """Puts data, runs and files of the user into the folder."""
    work, root = place.work, place.root
    for folder in (work, root / "a" / "b" / "beside", work / "empty"):
        folder.mkdir(parents=True)
    for file in (root / "a" / "b" / "beside" / "keep.txt", work / "notes.txt"):
        file.write_text("of the user\n")
    (work / "notes.json").write_text('{"mine": [1, 2]}\n')
    (work / "mine.csv").write_text("a,b\n1,2\n")
    (work / "loop").symlink_to("loop")
    grow_tree(work / "tree")
    for number, name in enumerate(("real", "swap")):
        film(work / "films" / "train" / name / "v.mp4", walk(3, seed=number))
    commands: list[tuple[str, ...]] = [
        ("train", *TINY, "method=lora", "hydra.run.dir=run"),
        ("train", *TINY, "method=fmsd", "method.mask.bias=none", "hydra.run.dir=other"),
        ("evaluate", "run"),
        ("merge", "merger=average", "experts=[run,other]", "out=merged"),
        ("report", "run", "out=page", "resamples=10"),
        ("index", *DATA, "out=manifest.parquet"),
        ("pack", *DATA, "out=packed"),
        ("extract", "data=folder", "data.root=films", "frames=2", "size=32", "workers=1",
         "out=crops"),
    ]  # fmt: skip
    for words in commands:
        outcome = run(words, work)
        assert outcome.code == 0, outcome
    interrupt(work / "run", work / "half")
    table = pl.read_parquet(work / "manifest.parquet")
    table = table.with_columns(path="tree/" + pl.col("path"))
    table.write_csv(work / "table.csv")
    table.write_csv(work / "table.tsv", separator="\t")
    table.write_parquet(work / "table.parquet")
    scores = pl.read_parquet(work / "manifest.parquet").filter(split="test")
    scores = scores.select("path", "label", score=pl.int_range(pl.len()) / pl.len())
    scores.write_csv(work / "scores.csv")
    scores.write_parquet(work / "scores.parquet")
    scores.write_ndjson(work / "scores.jsonl")
    (work / "scores.json").write_text(json.dumps(scores.to_dicts()))
