"""`fmsd doctor`: examines a copy of a dataset, or compares test frames with training frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from fmsd.errors import InputError
from fmsd.paths import expand_home

SIDES = ("train", "test")

UNREAD_DATA = "data=synthetic"
"""Hydra needs a choice of data; in these forms of a verb nothing of it is read."""


def with_unread_data(verb: str, overrides: Sequence[str]) -> Sequence[str]:
    """The overrides of `doctor train=... test=...` and `extract status=...`, completed for Hydra.

    Raises:
        InputError: a side of a comparison is missing, or other overrides would have no effect.
    """
    keys = [override.partition("=")[0] for override in overrides]
    if verb == "extract" and "status" in keys:
        if len(keys) > 1:
            idle = [each for each, key in zip(overrides, keys, strict=True) if key != "status"]
            raise InputError(
                f"{', '.join(idle)} would have no effect beside status=, which only reads",
                "leave it out",
            )
        return [*overrides, overrides[0].replace("status=", "out=", 1), UNREAD_DATA]
    given = [side for side in SIDES if side in keys]
    if verb != "doctor" or not given:
        return overrides
    if len(given) == 1:
        missing = next(side for side in SIDES if side not in given)
        raise InputError(
            f"{given[0]}= is compared with {missing}=, which is missing",
            "give train=NAME test='[NAME,...]'",
        )
    if idle := [
        override
        for override, key in zip(overrides, keys, strict=True)
        if (words := key.lstrip("+~").split("."))[0] in ("data", "frames", "limit", "cached")
        and words[:2] != ["data", "roots"]
    ]:
        raise InputError(
            f"{', '.join(idle)} would have no effect beside train= and test=",
            "leave it out; data.roots.NAME=PATH sets a root, and for other choices of frames write "
            "a manifest by fmsd index data=NAME ... out=FILE and give FILE in place of the name",
        )
    return [*overrides, UNREAD_DATA]


def doctor(config: DictConfig, folder: Path, command: list[str]) -> int:
    """fmsd doctor: reports what is wrong with a copy of a dataset."""
    from fmsd.cli.build import build_selection, check_argument_types
    from fmsd.cli.data_config import check_source, make_paths_absolute
    from fmsd.cli.hydra_compat import task_overrides
    from fmsd.tasks import doctor as task

    if config.train is not None:
        return _contamination(config)
    make_paths_absolute(config.data)
    check_source(config.data, task_overrides())
    out = expand_home(config.out)
    data = build_selection(config.data)
    settings = {key: config[key] for key in ("frames", "limit", "workers", "cached")}
    check_argument_types(task.doctor, settings, "")
    healthy = task.doctor(data, out, **settings)
    return 0 if healthy else 1


def _contamination(config: DictConfig) -> int:
    """fmsd doctor train=... test=...: finds training frames among those of tests."""
    from fmsd.cli.build import check_argument_types
    from fmsd.cli.hydra_compat import task_overrides
    from fmsd.data.name_overrides import as_names
    from fmsd.tasks import contamination as task

    check_argument_types(task.check_contamination, {"workers": config.workers}, "")
    named = any(override.startswith("out=") for override in task_overrides())
    out = expand_home(config.out) if named else Path("doctor/contamination.json")
    words = {side: as_names(config[side], side) for side in SIDES}
    roots = {name: root for name, root in config.data.roots.items() if root is not None}
    if idle := sorted(roots.keys() - {word for side in SIDES for word in words[side]}):
        raise InputError(
            f"data.roots.{idle[0]} would have no effect: neither train= nor test= names {idle[0]}",
            "leave it out",
        )
    sides = {side: _sources(words[side], side, roots) for side in SIDES}
    healthy = task.check_contamination(sides["train"], sides["test"], out, config.workers)
    return 0 if healthy else 1


def _sources(words: Sequence[str], side: str, roots: Mapping[str, str]) -> Mapping[str, Any]:
    """What each word names: data by its name, or a manifest by its file or folder.

    Args:
        roots: those that the command line gives, by the name of the data.
    """
    from fmsd.cli.hydra_compat import group_choices
    from fmsd.data.manifest import read_manifest
    from fmsd.data.prepared_folder import prepared_manifest

    known = [name for name in group_choices("data") if not name.startswith("_")]
    found: dict[str, Any] = {}
    for word in words:
        path = expand_home(word).absolute()
        if word in known:
            found[word] = _selection(word, roots.get(word))
        elif path.is_file():
            found[word] = read_manifest(path, path.parent)
        elif (manifest := prepared_manifest(path)) is not None:
            found[word] = manifest
        else:
            raise InputError(
                f"{side}={word} is neither a name of data nor a manifest, or a folder of crops "
                "with one",
                f"choose one of {', '.join(known)}, or give the file that fmsd index wrote into "
                "the folder of its frames",
            )
    return found


def _selection(name: str, root: str | None) -> Any:
    """The data of that name, with the given root, else the one that is set for it."""
    import hydra

    from fmsd.cli.build import build_selection
    from fmsd.cli.data_config import make_paths_absolute

    data = hydra.compose("index", overrides=[f"data={name}", "out=unused.parquet"]).data
    if root is not None:
        data.root = root
    make_paths_absolute(data)
    if data.root is None:
        raise InputError(
            f"data={name} has no root",
            f"add {'' if name in data.roots else '+'}data.roots.{name}=PATH",
        )
    return build_selection(data)
