"""Runs from elsewhere whose configuration tries to execute code."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import yaml
from omegaconf import OmegaConf

from fmsd.package_files import CONF


def settings(verb: str = "train", *overrides: str) -> Any:
    """The configuration of a run, as training writes it."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose(verb, list(overrides))
        return OmegaConf.to_container(config, resolve=True)


def foreign_config() -> dict[str, Any]:
    """The configuration of a run on data that is not here."""
    found = settings(
        "train", "data=folder", "data.root=/nowhere", "backbone=demo_vit", "trainer=smoke"
    )
    found["choices"], found["overrides"] = {"method": "fmsd", "data": "folder"}, []
    return {key: value for key, value in found.items() if key not in ("resume", "trust")}


class Bomb:
    """What makes a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.marker), "w")


def launch(marker: Path) -> dict[str, Any]:
    return {
        "_target_": "fmsd.engine.launcher.launch",
        "arguments": ["-c", f"open({str(marker)!r}, 'w')"],
        "count": 1,
    }


def unpickle(marker: Path) -> dict[str, Any]:
    file = marker.with_suffix(".pth")
    file.write_bytes(pickle.dumps(Bomb(marker)))
    return {
        "_target_": "timm.models.load_state_dict",
        "checkpoint_path": str(file),
        "weights_only": False,
    }


def write(marker: Path) -> dict[str, Any]:
    return {"_target_": "builtins.open", "_args_": [str(marker), "w"]}


Attack = Callable[[dict[str, Any], Path], None]


RECORD: dict[str, Any] = {
    "seed": 0,
    "selection": "iid",
    "origin": {"selection": "iid", "augment": "light", "train": {}, "left_out": None},
    "epoch": 0,
    "trainable": 1,
    "parameters": 1,
    "seconds": 1.0,
    "manifests": {"test": {}},
}
"""The least that a `run.json` holds."""


def folder(place: Path, config: dict[str, Any], finished: bool = True) -> Path:
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    if finished:
        (place / "run.json").write_text(json.dumps(RECORD))
    return place


def change(**parts: Any) -> Attack:
    """Sets keys of groups of a configuration."""

    def apply(run: dict[str, Any], marker: Path) -> None:
        for group, keys in parts.items():
            run[group].update(keys)

    return apply
