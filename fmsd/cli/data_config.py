"""Completes and checks `data` of a composed configuration: paths, sources of test datasets."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict

import fmsd.cli.resolvers  # noqa: F401  which the configuration files call
from fmsd.cli.hydra_compat import group_choices
from fmsd.cli.roots import LOOKUP, find_root, is_absent, is_lost
from fmsd.cli.suites import check_suite
from fmsd.data.name_overrides import as_names
from fmsd.data.remote import check_address, is_remote
from fmsd.errors import InputError
from fmsd.package_files import EMBEDDED
from fmsd.paths import expand_home

log = logging.getLogger(__name__)


def make_paths_absolute(data: DictConfig) -> None:
    """Makes the paths of the data absolute, so that the run's record holds from anywhere.

    Raises:
        InputError: a root is an address with credentials.
    """
    for node, keys in ((data, ("root", "manifest")), (data.roots, tuple(data.roots))):
        for key in keys:
            if node[key] is not None:
                path = node[key]
                check_protocol(path)
                node[key] = check_address(path) if is_remote(path) else absolute_path(path)


def check_protocol(path: str) -> None:
    """Refuses HOST:PORT/FOLDER, an address without its protocol, where there is no such folder.

    Raises:
        InputError: it is one.
    """
    if re.match(r"[\w.-]+:\d+(/|$)", path) and not expand_home(path).exists():
        raise InputError(
            f"There is no folder {path}, which looks like an address without its protocol",
            f"give http://{path}, or the path of a folder",
        )


def absolute_path(path: str) -> str:
    """The absolute path; the name of a file inside this package (`package:FILE`) stays."""
    return path if path.startswith(EMBEDDED) else str(expand_home(path).absolute())


def add_test_sources(data: DictConfig) -> None:
    """Adds the source of each test dataset that has its own `conf/data/NAME.yaml`.

    Its root comes from the same file unless `data.roots.NAME` is given.

    Raises:
        InputError: see `fmsd.cli.suites.check_suite`.
    """
    check_suite(data)
    for name in as_names(data.test, "data.test"):
        if name in (str(data.name), *as_names(data.train, "data.train")) or (
            name in data.others and data.roots.get(name)
        ):
            continue
        if name not in group_choices("data"):
            continue  # the data's own source must list it
        other = hydra.compose("train", overrides=[f"data={name}"]).data
        if data.roots.get(name) or _warn_of_lost_root(name, other):
            other.root = None  # what is set elsewhere is not looked at
        other = OmegaConf.to_container(other, resolve=True)
        if isinstance(other, dict):
            with open_dict(data):
                data.others[name] = other["source"]
                data.roots[name] = data.roots.get(name) or default_root(other)
    make_paths_absolute(data)


def _warn_of_lost_root(name: str, data: DictConfig) -> bool:
    """Whether what sets the root of a test dataset names no folder with files; a warning says so.

    The dataset then counts as one without a root.
    """
    written: Any = OmegaConf.to_container(data, resolve=False)
    lookup = LOOKUP.fullmatch(str(written["root"]))
    root = find_root(lookup[1], lookup[2]) if lookup else None
    if root is None or not is_absent(root.folder):
        return False
    what = "no folder" if is_lost(root) else "empty or cannot be read"
    log.warning("%s, which %s gives as the root of %s, is %s.", root.place, root, name, what)
    return True


def default_root(data: Mapping[Any, Any]) -> str | None:
    """The root that a data file sets.

    None if it is the folder of DeepfakeBench, which many datasets share, and that holds no JSON
    file of this dataset.
    """
    from fmsd.data.sources import deepfakebench_json

    root, file = data["root"], data["source"].get("file")
    shared = find_root("deepfakebench")
    folder = None if shared is None else shared.folder
    if root is not None and file and folder is not None and Path(root) == folder:
        return root if deepfakebench_json.has_json(folder, file) else None
    return root


def check_source(data: DictConfig, overrides: Sequence[str]) -> None:
    """Rejects `data.source.*` overrides when a manifest replaces the source."""
    from fmsd.data import prepared_folder
    from fmsd.data.mirror import root_folder

    idle = [override for override in overrides if override.lstrip("+~").startswith("data.source.")]
    if idle and (
        data.manifest is not None
        or (
            data.root is not None
            and prepared_folder.prepared_manifest(root_folder(data.root)) is not None
        )
    ):
        raise InputError(
            f"{', '.join(idle)} would have no effect: {data.manifest or data.root} brings a "
            "manifest, which is read as it was made",
            "leave it out, or choose among its forgeries with data.forgeries=[...], among its "
            "compressions with data.compression=NAME",
        )


def check_outside(out: str, data: DictConfig) -> None:
    """Rejects an output folder inside the data's root: the next scan would read it as data."""
    if data.root is not None and Path(out).resolve().is_relative_to(Path(data.root).resolve()):
        raise InputError(
            f"out={out} lies inside data.root={data.root} and would be read as data the next time",
            "choose a folder beside it",
        )
