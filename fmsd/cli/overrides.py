"""Overrides as users type them, made into overrides that Hydra's grammar reads."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from fmsd.errors import InputError
from fmsd.quoting import quote

PATHS = re.compile(
    r"data\.(root|manifest|source\.file|roots\.[^=]+)|run|runs|out|base|resume|add|to|backbone\.weights|detector\.weights|method\.mask\.file"
    r"|hydra\.run\.dir|hydra\.sweep\.dir"
)
"""Keys that hold one path, whose value is taken as it stands."""

RUNS = ("run", "runs", "resume", "add", "to")
"""Those of them that hold a run, for which a file of it may stand."""

LISTS = ("experts",)
"""Keys that hold a list of paths."""

PLURAL = ("experiments", "logger")
"""Groups of which several choices go together."""

BARE: Mapping[str, str] = {"evaluate": "run", "explain": "run", "fold": "run", "report": "runs"}
"""The key of a word without one, for verbs that are about one folder."""

FLAGS = {
    "-m", "--multirun", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r", "--info", "-i", "--hydra-help", "--shell-completion", "-sc",
    "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--experimental-rerun",
}  # fmt: skip
"""Hydra's own options."""

VALUED = {
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
    "--experimental-rerun",
}
"""Those of them that are followed by a value."""


def readable(verb: str, words: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """The words of a command line with paths quoted where Hydra's grammar needs it, and a folder without a key named.

    Args:
        groups: the choices of each group of the verb's configuration.

    Raises:
        InputError: a word that is no override, an option that does not exist, an empty path, or
            several choices of one group.
    """
    sweep = any(word in ("-m", "--multirun") for word in words)
    read: list[str] = []
    for before, word in pairwise(["", *words]):
        key, sign, value = word.partition("=")
        if (
            before in VALUED or key in FLAGS or re.fullmatch(r"~\w[^=]*", word)
        ):  # an option, its value, or the removal of a key
            read.append(word)
        elif word.startswith("-"):
            raise InputError(f"fmsd has no option {key}", _without_dashes(word))
        elif sign:
            read.append(f"{key}={_value(key.lstrip('+'), value, sweep, groups)}")
        elif word in groups:
            raise InputError(
                f"{word} lacks its choice", f"give {word}=NAME: {', '.join(groups[word])}"
            )
        elif verb in BARE:
            read.append(f"{BARE[verb]}={_path(BARE[verb], word, sweep)}")
        else:
            raise InputError(
                f"{word!r} is no override", "write key=value, without blanks around the sign"
            )
    return read


def _value(key: str, value: str, sweep: bool, groups: Mapping[str, Sequence[str]]) -> str:
    if key in groups and key not in PLURAL:
        return _choice(key, value, sweep)
    if key == "search" and not _quoted(value):
        return quote(value)  # its commas are no sweep
    if key in LISTS or (key == "data.source.file" and value.startswith("[")):
        return _list(value)
    return _path(key, value, sweep) if PATHS.fullmatch(key) else value


def _without_dashes(word: str) -> str:
    key, sign, value = word.lstrip("-").partition("=")
    return (
        f"write overrides without dashes: {key.replace('-', '_')}={value if sign else 'VALUE'}"
        if key
        else "leave it out"
    )


def _choice(group: str, value: str, sweep: bool) -> str:
    """A choice of a group; several are a sweep."""
    if re.fullmatch(r"null|true|false|[\d.]+", value.strip()):
        raise InputError(
            f"{group}={value} names no choice of its group", "leave it out, or name one"
        )
    names = [name.strip() for name in value.strip().removeprefix("[").removesuffix("]").split(",")]
    if len(names) > 1 and (value.strip().startswith("[") or not sweep):
        raise InputError(
            f"{group}={value} names several choices of one group",
            f"give each a job of its own with -m {group}={','.join(names)}",
        )
    if names == [""]:
        raise InputError(f"{group}= names no choice of its group", "leave it out, or name one")
    return ",".join(names)


def _quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def _path(key: str, value: str, sweep: bool) -> str:
    """A path as Hydra reads it; what is quoted, an interpolation or null stays."""
    if not value.strip():
        raise InputError(
            f"{key}= is empty", "give a path; if a variable of the shell stands there, set it"
        )
    if (
        value == "null"
        or _quoted(value)
        or "${" in value
        or (sweep and re.match(r"(choice|range|glob|tag|sort|shuffle)\(", value))
    ):
        return value
    several = sweep and not key.startswith("hydra.")
    parts = value.split(",") if several else [value]
    return ",".join(_literal(_run_of(part) if key in RUNS else part) for part in parts)


def _run_of(text: str) -> str:
    """The folder of a run instead of a file that every run has; any other path as it is."""
    place = Path(os.path.expanduser(text))  # noqa: PTH111  which leaves what it does not know
    known = place.name in ("run.json", "config.yaml", "results.csv", "results.md")
    home = place.parent if known else place.parent.parent if place.suffix == ".ckpt" else None
    return (
        str(home)
        if home is not None and os.path.isfile(home / "config.yaml") and os.path.isfile(place)
        else text
    )


def _literal(text: str) -> str:
    """A path, quoted where Hydra would read something else in it: numbers and booleans, too."""
    plain = re.fullmatch(r"[\w./+@%-]+", text, re.ASCII) and (
        re.match(r"[A-Za-z]", text) or "/" in text
    )
    return (
        text
        if _quoted(text) or (plain and text.lower() not in ("true", "false", "null", "inf", "nan"))
        else quote(text)
    )


def _list(value: str) -> str:
    """A list of paths as Hydra reads it; one that holds quotes, lists or interpolations stays."""
    text = value.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return value if _quoted(text) or text == "null" else _literal(text)
    inner = text[1:-1]
    if re.search(r"['\"\[]|\${", inner):
        return value
    return (
        "["
        + ",".join(_literal(_run_of(part.strip())) for part in inner.split(",") if part.strip())
        + "]"
    )


SYNONYMS: Mapping[str, str] = {
    "lr": "optimizer.lr",
    "learning_rate": "optimizer.lr",
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "max_iters": "trainer.max_steps",
    "device": "trainer.accelerator",
    "gpu": "trainer.devices",
    "gpus": "trainer.devices",
    "bs": "data.batch_size",
    "batch": "data.batch_size",
    "root": "data.root",
    "path": "data.root",
    "num_workers": "data.workers",
    "img_size": "backbone.size",
    "image_size": "backbone.size",
    "resolution": "backbone.size",
    "ckpt": "backbone.weights",
    "checkpoint": "backbone.weights",
    "pretrained": "backbone.pretrained",
    "model": "backbone",
    "dataset": "data",
    "scheduler": "schedule",
    "output": "out",
    "output_dir": "hydra.run.dir",
}
"""Keys of other frameworks, and ours."""


def suggestions(key: str, known: Sequence[str], groups: Iterable[str]) -> list[str]:
    """Keys of a configuration that someone may have meant by another one, the likeliest first; at most three.

    Args:
        known: all dotted keys of the configuration.
        groups: its groups, which are keys, too.
    """
    if (synonym := SYNONYMS.get(key.lower())) and (
        synonym in known or synonym in groups or synonym.startswith("hydra.")
    ):
        return [synonym]
    last = key.rpartition(".")[2]
    alike = [name for name in known if name.rpartition(".")[2] == last and name != key]
    close = difflib.get_close_matches(key, [*known, *groups], n=1)
    ends = {name.rpartition(".")[2]: name for name in reversed(known)}
    far = [ends[name] for name in difflib.get_close_matches(last, list(ends), n=1)]
    return (alike or [name for name in (close or far) if name != key])[:3]
