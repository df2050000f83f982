"""Translates overrides as users type them into Hydra's grammar."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fmsd.cli.conf_files import choice_file
from fmsd.cli.options import is_sweep, split_options
from fmsd.errors import InputError
from fmsd.plugins import plugin_of
from fmsd.quoting import hydra_quote

PATHS = re.compile(
    r"data\.(root|manifest|source\.file|roots\.[^=]+)|run|runs|out|base|resume|add|to|list|weights"
    r"|scores|root|status|backbone\.weights|detector\.weights|method\.mask\.file|hydra\.run\.dir"
    r"|hydra\.sweep\.dir"
)
"""Keys that hold one path, whose value is taken literally."""

RUNS = ("run", "runs", "resume", "add", "to")
"""Path keys that hold a run; they accept a file of the run, too."""

LISTS = ("experts", "ceiling", "files")
"""Keys that hold a list of paths."""

ROOTS = "data.roots."
"""Prefix of the keys that hold the root of another test dataset."""

PLURAL = ("experiments", "logger")
"""Groups of which several choices can be combined."""

BARE: Mapping[str, str] = {
    "cite": "run", "demo": "run", "evaluate": "run", "explain": "run", "export": "run",
    "fold": "run", "push": "run",
    "report": "runs", "verify": "run",
}  # fmt: skip
"""The key of an argument without one, for verbs about one folder."""


WITHOUT_SWEEP = {
    "demo": "give each run a command and a port= of its own",
    "predict": "give all files to one command",
    "score": "give each detector a command and an out= of its own",
}
"""The verbs that have no sweep, and what to do instead."""


def to_hydra_overrides(
    verb: str, arguments: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> list[str]:
    """The arguments of a verb as Hydra parses them: paths are quoted, a bare folder gets its key.

    Hydra's options come first, since it refuses them between overrides.

    Args:
        groups: the choices of each group of the verb's configuration.

    Raises:
        InputError: an argument that is no override, an option that does not exist or cannot be
            given so, an empty path, several choices of one group, or a sweep of a verb that has
            none.
    """
    sweep = is_sweep(arguments)
    if sweep and verb in WITHOUT_SWEEP:
        raise InputError(f"fmsd {verb} has no sweep", WITHOUT_SWEEP[verb])
    overrides, words = split_options(arguments)
    resumes = any(word.startswith("resume=") for word in words)
    for argument in words:
        key, sign, value = argument.partition("=")
        if re.fullmatch(r"~\w[^=]*", argument):
            overrides.append(argument)
        elif argument.startswith("-"):
            raise InputError(f"fmsd has no option {key}", _without_dashes(argument))
        elif sign:
            name = _listed(key, groups)
            if name.startswith("logger.") and (verb == "evaluate" or resumes):
                name = f"++{name}"  # of the run's own configuration
            if verb == "import" and name.startswith("backbone."):
                name = f"++{name}"  # of the published detector's own configuration
            if verb == "score" and (name == "args" or name.startswith("args.")):
                name = f"++{name}"  # of the factory, whatever arguments it has
            overrides.append(f"{name}={_value(verb, key.lstrip('+'), value, sweep, groups)}")
        elif argument in groups:
            choices = ", ".join(groups[argument])
            raise InputError(f"{argument} lacks its choice", f"give {argument}=NAME: {choices}")
        elif verb in BARE:
            overrides.append(f"{BARE[verb]}={_path(BARE[verb], argument, sweep)}")
        else:
            raise InputError(
                f"{argument!r} is no override", "write key=value, without blanks around the sign"
            )
    return overrides


def _listed(key: str, groups: Mapping[str, Sequence[str]]) -> str:
    """A key as Hydra accepts it: the root of a plugin's dataset is added to those of fmsd's."""
    name = key.removeprefix(ROOTS)
    added = key.startswith(ROOTS) and name in groups.get("data", ())
    return f"++{key}" if added and plugin_of(choice_file("data", name)) else key


def _value(
    verb: str, key: str, value: str, sweep: bool, groups: Mapping[str, Sequence[str]]
) -> str:
    group = key.partition("@")[0]
    if group in PLURAL:
        return _choices(group, value)
    if group in groups or "/" in group or "@" in key:
        return _choice(group, value, sweep)
    if verb == "score" and key == "detector":  # also a group, of which Hydra would take a choice
        return f"{{factory: {hydra_quote(value)}}}"
    if key == "search" and not _is_quoted(value):
        return hydra_quote(value)  # its commas are no sweep
    if key in LISTS or (key == "data.source.file" and value.startswith("[")):
        return _list(value)
    return _path(key, value, sweep) if PATHS.fullmatch(key) else value


def _without_dashes(option: str) -> str:
    """The remedy for an option that does not exist."""
    key, sign, value = option.lstrip("-").partition("=")
    return (
        f"write overrides without dashes: {key.replace('-', '_')}={value if sign else 'VALUE'}"
        if key
        else "leave it out"
    )


def _choice(group: str, value: str, sweep: bool) -> str:
    """The choice of a group, or the choices that a sweep goes through.

    Raises:
        InputError: no choice, or several without a sweep.
    """
    names = [name.strip() for name in value.strip().removeprefix("[").removesuffix("]").split(",")]
    if len(names) > 1 and (value.strip().startswith("[") or not sweep):
        raise InputError(
            f"{group}={value} names several choices of one group",
            f"give each a job of its own with -m {group}={','.join(names)}",
        )
    if not all(map(_may_name_choice, names)):
        raise InputError(
            f"{group}={value} names no choice of its group", "leave it out, or name one"
        )
    return ",".join(names)


def _choices(group: str, value: str) -> str:
    """The choice of a group, or the list of those that are combined.

    Raises:
        InputError: something else than names.
    """
    inner = value.strip().removeprefix("[").removesuffix("]")
    if inner not in ("", "null") and not all(map(_may_name_choice, inner.split(","))):
        raise InputError(
            f"{group}={value} names no choice of its group",
            f"leave it out, or give {group}=NAME or {group}='[NAME,NAME]'",
        )
    return value


def _may_name_choice(text: str) -> bool:
    """Whether Hydra reads a text as a name; true, too, for what it cannot read and refuses."""
    from hydra.errors import HydraException

    from fmsd.cli.hydra_compat import parse_value

    if not text.strip():
        return False
    try:
        value = parse_value(text.strip())
    except HydraException:
        return True
    return value is not None and not isinstance(value, int | float | dict | list)


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def _path(key: str, value: str, sweep: bool) -> str:
    """A path in Hydra's grammar; one in quotes, an interpolation and null stay.

    Raises:
        InputError: it is empty.
    """
    if not value.strip():
        raise InputError(
            f"{key}= is empty", "give a path; if a variable of the shell stands there, set it"
        )
    if (
        value == "null"
        or _is_quoted(value)
        or "${" in value
        or (sweep and re.match(r"(choice|range|glob|tag|sort|shuffle)\(", value))
    ):
        return value
    several = sweep and not key.startswith("hydra.")
    parts = value.split(",") if several else [value]
    return ",".join(_literal(_run_of(part) if key in RUNS else part) for part in parts)


def _run_of(text: str) -> str:
    """The folder of the run if the path is one of its files; any other path unchanged."""
    path = Path(os.path.expanduser(text))  # noqa: PTH111  leaves unknown users alone
    is_run_file = path.name in ("run.json", "config.yaml", "results.csv", "results.md")
    folder = path.parent if is_run_file else path.parent.parent if path.suffix == ".ckpt" else None
    return (
        str(folder)
        if folder is not None and os.path.isfile(folder / "config.yaml") and os.path.isfile(path)
        else text
    )


def _literal(text: str) -> str:
    """A path, quoted if Hydra would parse it as anything else, a number for example."""
    plain = re.fullmatch(r"[\w./+@%-]+", text, re.ASCII) and (
        re.match(r"[A-Za-z]", text) or "/" in text
    )
    return (
        text
        if _is_quoted(text)
        or (plain and text.lower() not in ("true", "false", "null", "inf", "nan"))
        else hydra_quote(text)
    )


def _list(value: str) -> str:
    """A list of paths in Hydra's grammar; one with quotes, lists or interpolations stays."""
    text = value.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return value if _is_quoted(text) or text == "null" else _literal(text)
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
    "threshold": "at",
    "output_dir": "hydra.run.dir",
}
"""Keys of other frameworks, each with ours."""


def suggestions(key: str, known: Sequence[str], groups: Iterable[str]) -> list[str]:
    """Up to three keys that the user may have meant by an unknown one, the likeliest first.

    Args:
        known: all dotted keys of the configuration.
        groups: its groups, which are keys as well.
    """
    if (synonym := SYNONYMS.get(key.lower())) and (
        synonym in known or synonym in groups or synonym.startswith("hydra.")
    ):
        return [synonym]
    last = key.rpartition(".")[2]
    same_end = [name for name in known if name.rpartition(".")[2] == last and name != key]
    close = difflib.get_close_matches(key, [*known, *groups], n=1)
    ends = {name.rpartition(".")[2]: name for name in reversed(known)}
    far = [ends[name] for name in difflib.get_close_matches(last, list(ends), n=1)]
    return (same_end or [name for name in (close or far) if name != key])[:3]
