"""The composed configuration of a run, and the sweep that it is a job of."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from fmsd.errors import InputError, reason
from fmsd.json_records import Seed
from fmsd.redaction import redact_settings
from fmsd.runs.folder import Run
from fmsd.safe_yaml import parse_settings

SWEEP_FILES = ("sweep.json", "multirun.yaml")
"""Files in the folder of a sweep before its first job begins: of this package, and of Hydra."""

TRAINING_KEYS = (
    "backbone.",
    "method.",
    "loss.",
    "wrapper.",
    "optimizer.",
    "schedule.",
    "learner.",
    "merger.",
    "select",
    "patience",
    "data.batch",
    "data.strong",
    "trainer.max_",
    "trainer.precision",
)
"""Prefixes of the keys that determine a run's weights besides data and seed."""

RESUMED_KEYS = (
    *TRAINING_KEYS,
    "seed",
    "head.",
    "data.augment",
    "data.domains",
    "data.seed",
    "trainer.limit_train_batches",
)
"""Prefixes of the keys that must be the same where a training goes on."""

ADDED_KEYS = ("loss.", "data.strong")
"""Prefixes of the keys among `TRAINING_KEYS` that runs of fmsd 0.1.0 lack."""

PLAIN_LOSS = {"_target_": "fmsd.losses.detection.DetectionLoss"}
"""The keys below `loss` of binary cross-entropy whose value is not 0."""

EARLIER_NAMES = {"backbone.normalise_head": "backbone.cosine_head"}
"""Keys among `TRAINING_KEYS`, and their names in runs of fmsd 0.1.0."""

LORA = "fmsd.peft.lora.lora"
"""The method with two keys that runs of fmsd 0.1.0 lack, see `EARLIER_LORA`."""

EARLIER_LORA = {"method.init": "kaiming", "method.scaling": "standard"}
"""Its keys, with the values that LoRA had before there was a choice."""

PATH_KEYS = ("backbone.weights", "method.mask.file")
"""Keys among them that hold the path of a file."""


class DataSettings(TypedDict, total=False):
    """The keys of `data` that are read before anything is built of them."""

    root: str | None
    manifest: str | None
    source: dict[str, Any]
    roots: dict[Any, str | None]  # YAML reads the name 0 as a number
    others: dict[Any, dict[str, Any]]


class RunSettings(TypedDict, total=False):
    """The keys of `config.yaml` that are read before anything is built of them."""

    seed: Seed | None
    backbone: dict[str, Any]
    data: DataSettings | None
    trainer: dict[str, Any] | None
    merger: dict[str, Any]
    experts: list[str]
    choices: dict[str, Any]
    overrides: list[str]


def read_configuration(folder: Path) -> dict[str, Any]:
    """The composed configuration of a run.

    Raises:
        InputError: the file is no configuration.
    """
    path = folder / "config.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no configuration ({reason(error)})", "put it back, or remove it"
        ) from error
    return parse_settings(text, path)


def choice_tags(folder: Path) -> dict[str, str]:
    """The chosen options of the groups method, data, backbone and wrapper, by group."""
    choices = read_configuration(folder)["choices"]
    return {
        group: str(choices[group])
        for group in ("method", "data", "backbone", "wrapper")
        if group in choices
    }


def sweep_folder(folder: Path) -> Path | None:
    """The folder of the sweep that a run is a job of; None for a run outside a sweep."""
    return next(
        (
            parent
            for parent in folder.absolute().parents
            if any((parent / name).is_file() for name in SWEEP_FILES)
        ),
        None,
    )


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens a nested configuration into one level of dotted keys."""
    if not isinstance(node, dict) or not node:
        return {prefix.removesuffix("."): node}
    return {
        key: value
        for name, child in node.items()
        for key, value in flatten(child, f"{prefix}{name}.").items()
    }


def first_difference(existing: str, current: str) -> str | None:
    """The first key in which two configurations differ; None if they are equal.

    `overrides` is not compared: the same configuration may be spelled in several ways. Passwords
    and tokens are not either: no file holds them.

    Args:
        existing: text of a `config.yaml` in a folder. Text that is no configuration differs in
            every key.
        current: text of the configuration of this command.

    Raises:
        InputError: `current` is no configuration.
    """
    second = _without_overrides(parse_settings(current, "The configuration of this command"))
    try:
        first = _without_overrides(parse_settings(existing, "The configuration in the folder"))
    except InputError:
        first = {}
    return next(
        (key for key in first | second if first.get(key, ...) != second.get(key, ...)), None
    )


def _without_overrides(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in flatten(redact_settings(settings)).items()
        if not key.startswith("overrides")
    }


def weights_digest(config: str) -> str:
    """A hash of the settings that determine the weights of a training, the seed included.

    Args:
        config: its configuration, as YAML text.

    Raises:
        InputError: it is no configuration.
    """
    settings = flatten(parse_settings(config, "The configuration of this command"))
    relevant = {
        key: value
        for key, value in settings.items()
        if key.startswith(RESUMED_KEYS) and key not in PATH_KEYS
    }
    text = json.dumps(relevant, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def training_settings(run: Run, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings that determine a run's weights besides data and seed, as dotted keys.

    The batches of an evaluation or a merge have no influence on weights and are left out. So are
    choices that runs of fmsd 0.1.0 had not, where they are what those runs did, and a key that was
    renamed has its earlier name: runs and recorded results of that version stay comparable.

    Args:
        record: content of the run's `run.json`.

    Returns:
        None if the configuration is not kept.

    Raises:
        InputError: the file is no configuration.
    """
    if not run.config.is_file():
        return None
    settings = flatten(read_configuration(run.folder))
    # how many tars are mixed; an order without tars has none
    further = ("data.buffer",) if settings.get("data.batches") == "shards" else ()
    irrelevant = () if {"run", "merged"}.isdisjoint(record) else ("data.",)
    if _is_plain_loss(settings):
        irrelevant += ADDED_KEYS
    earlier = EARLIER_LORA.items() if settings.get("method._target_") == LORA else ()
    return {
        EARLIER_NAMES.get(key, key): value
        for key, value in settings.items()
        if key.startswith((*TRAINING_KEYS, *further))
        and not key.startswith(irrelevant)
        and key not in PATH_KEYS
        and key.rpartition(".")[2] != "seed"
        and (key, value) not in earlier
    }


def settings_digest(settings: Mapping[str, Any]) -> str:
    """The short hash of `training_settings` that a report's results are recorded with."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _is_plain_loss(settings: Mapping[str, Any]) -> bool:
    """Whether dotted settings choose the cross-entropy of one view, as runs without a loss do."""
    chosen = {
        key.removeprefix("loss."): value
        for key, value in settings.items()
        if key.startswith("loss.") and value
    }
    return chosen in ({}, PLAIN_LOSS) and not settings.get("data.strong")
