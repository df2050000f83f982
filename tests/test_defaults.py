"""The defaults of the library are those of the configuration: who calls it trains what the command
line trains.
"""

import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from omegaconf import OmegaConf

from fmsd.engine.datamodule import DataModule
from fmsd.engine.learner import Learner
from fmsd.engine.learner_settings import LearnerSettings
from fmsd.engine.session import Plan
from tests.test_conf import GROUPS, compose, targets

NEEDED = {
    "folder": ["data.root=/data"],
    "table": ["data.root=/data", "data.train=[a]", "data.test=[a]"],
    "deepfakebench": [
        "data.root=/data",
        "data.train=[a]",
        "data.test=[a]",
        "data.source.file=x.json",
    ],
    "yunet": ["data=synthetic"],
    "mediapipe": ["data=synthetic"],
}
"""What a choice needs beside itself."""

VERBS = {"merger": ("merge", "seed=0"), "detector": ("extract", "out=crops")}
"""The verb of a group, and what it needs; else it is training."""

EXCEPTIONS: dict[tuple[str, str], str] = {
    (
        "fmsd.models.detector.detector",
        "pretrained",
    ): "a call of the library downloads nothing that it was not asked for",
    (
        "fmsd.models.detector.detector",
        "weights",
    ): "a file of its own for the backbone of the demonstration",
    (
        "fmsd.peft.fmsd.fmsd",
        "mask",
    ): "a mask is measured on training batches, which a call of the library need not have",
    ("fmsd.data.selection.Selection", "roots"): "paths",
    ("fmsd.data.selection.Selection", "others"): "filled from roots",
    ("fmsd.data.selection.Selection", "expected"): "the size of a dataset",
    ("fmsd.data.selection.Selection", "names"): "how a dataset names its videos",
    (
        "fmsd.data.selection.Selection",
        "frames",
    ): "videos of a dataset have many frames, those of its like have few",
    ("fmsd.engine.datamodule.DataModule", "batch_size"): "the size of a dataset",
}
"""Arguments whose value in a file may differ from the target's default, and why."""

BY_CHOICE: dict[tuple[str, str], str] = {
    (
        "effort",
        "working_scale",
    ): "another method of the same function, which starts at the singular values",
    ("effort", "directions"): "one direction is what makes it Effort",
    ("effort", "penalties"): "another method of the same function, without penalties",
    ("gend", "uniformity"): "one loss has all terms; their weights are what makes it GenD's",
    ("gend", "alignment"): "one loss has all terms; their weights are what makes it GenD's",
    ("consistency", "smoothing"): "one loss has all terms; those of BiasConsist",
    ("consistency", "consistency"): "one loss has all terms; those of BiasConsist",
    ("consistency", "strong_share"): "one loss has all terms; those of BiasConsist",
    ("consistency", "ramp"): "one loss has all terms; those of BiasConsist",
    ("faceshifter", "dataset"): "one of the manipulations that the reader of FaceForensics++ knows",
    (
        "faceshifter",
        "manipulations",
    ): "one of the manipulations that the reader of FaceForensics++ knows",
    ("faceshifter", "compression"): "there are several, and one is trained on",
    ("dfd", "compression"): "there are several, and one is trained on",
    ("deepfakebench", "compression"): "there are several, and one is trained on",
}
"""The same for a single file."""


def plain(value: Any) -> Any:
    """A default as YAML would say it."""
    if isinstance(value, Mapping):
        return {key: plain(own) for key, own in value.items()}
    return [plain(own) for own in value] if isinstance(value, (list, tuple)) else value


def differing(target: Any, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The value and the default of every argument that has both, where they differ."""
    parameters = inspect.signature(target).parameters
    pairs = {
        name: (value, plain(parameters[name].default))
        for name, value in values.items()
        if name in parameters
    }
    return {
        name: pair
        for name, pair in pairs.items()
        if pair[1] is not inspect.Parameter.empty and pair[0] != pair[1]
    }


def differences(group: str, choice: str) -> Iterator[tuple[str, dict[str, tuple[Any, Any]]]]:
    """Every target of this package in a file, with the arguments in which the file and its defaults
    differ.
    """
    verb, *more = VERBS.get(group, ("train",))
    config = OmegaConf.to_container(
        compose(verb, f"{group}={choice}", *more, *NEEDED.get(choice, [])), resolve=True
    )
    assert isinstance(config, dict)
    for node in targets(config[group]):
        module, _, name = node["_target_"].rpartition(".")
        if module.startswith("fmsd."):
            yield node["_target_"], differing(getattr(importlib.import_module(module), name), node)
    if group == "data":
        yield "fmsd.engine.datamodule.DataModule", differing(DataModule, config["data"])


CHOICES = [
    (group, choice)
    for group, choice in GROUPS
    if group not in ("experiments", "protocol", "suite", "trainer", "logger", "launcher", "sweeper")
]


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_the_defaults_of_a_target_are_the_values_of_its_file(group: str, choice: str) -> None:
    for target, found in differences(group, choice):
        assert not {
            argument
            for argument in found
            if (target, argument) not in EXCEPTIONS and (choice, argument) not in BY_CHOICE
        }, found


def test_the_defaults_of_training_are_those_of_its_configuration() -> None:
    config = OmegaConf.to_container(compose("train", "data=synthetic"), resolve=True)
    assert isinstance(config, dict)
    assert {*config["learner"]} == {*inspect.signature(LearnerSettings).parameters}
    assert differing(LearnerSettings, config["learner"]) == {}
    assert differing(Learner, {"seed": config["seed"]}) == {}
    assert {*inspect.signature(Plan).parameters} <= {*config}
    assert differing(Plan, config) == {}


@pytest.mark.slow
def test_every_exception_is_one() -> None:
    """What has come to agree is taken off the lists."""
    used: set[tuple[str, str]] = set()
    for group, choice in CHOICES:
        for target, found in differences(group, choice):
            used |= {(name, argument) for argument in found for name in (target, choice)}
    assert {*EXCEPTIONS, *BY_CHOICE} <= used
