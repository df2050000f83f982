"""Specialists to merge."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from fmsd.cli.main import main
from tests.conftest import grow_tree

METHODS = ("fmsd", "lora", "full")

BASE = "package:demo_vit.safetensors"


def train_specialists(folder: Path) -> None:
    """Trains three specialists of one backbone, `runs/METHOD`, on data that it grows."""
    grow_tree(folder / "data", domains=("real", "swap", "blend"))
    for method in METHODS:
        overrides = [
            "data=folder",
            f"data.root={folder / 'data'}",
            "trainer=smoke",
            "backbone=demo_vit",
            f"method={method}",
            "optimizer.lr=1e-2",
            f"hydra.run.dir={folder / 'runs' / method}",
        ]
        assert main(["train", *overrides]) == 0


def fold_specialists(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The plain weights of the specialists, written beside their runs once."""
    for method in METHODS:
        if not (folder / f"{method}.safetensors").exists():
            assert main(["fold", f"run=runs/{method}", f"out={method}.safetensors"]) == 0
    return {method: load_file(folder / f"{method}.safetensors") for method in METHODS}


RUNS = "experts=[runs/fmsd,runs/lora,runs/full]"


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The plain weights of a run."""
    assert main(["fold", f"run={run}", f"out={run / 'plain.safetensors'}"]) == 0
    return load_file(run / "plain.safetensors")


def record(run: str) -> Any:
    return json.loads(Path(run, "merge.json").read_text())
