"""The `_target_`s that the configuration files of fmsd and its plugins declare, by key path."""

import functools
from typing import NamedTuple

from fmsd.cli.conf_files import KeyPath, read_conf_file, walk
from fmsd.plugins import Plugin, conf_files, conf_folders, plugin_of

GROUPS = (
    "backbone",
    "data",
    "logger",
    "loss",
    "merger",
    "method",
    "optimizer",
    "schedule",
    "trainer",
    "wrapper",
)
"""The groups of the configuration that are kept in a run."""


class Declaration(NamedTuple):
    """How configuration files declare a target at a key path.

    Args:
        partial: its `_partial_`.
        plugin: the plugin that declares it; None if fmsd does.
        arguments: the keys that the plugin's files set beside it.
    """

    partial: bool | None
    plugin: Plugin | None
    arguments: frozenset[str]


@functools.cache
def declared_targets() -> dict[KeyPath, dict[str, Declaration]]:
    """By key path, each target that a configuration file names there; those of fmsd win."""
    targets: dict[KeyPath, dict[str, Declaration]] = {}
    files = [folder / path for folder in conf_folders() for path in conf_files(folder)]
    for file in files:
        package, values = read_conf_file(file)
        plugin = plugin_of(file)
        for key_path, node in walk(values, package):
            if isinstance(node, dict) and "_target_" in node and key_path and key_path[0] in GROUPS:
                known = targets.setdefault(declared_key_path(key_path), {})
                before = known.get(node["_target_"])
                if before is not None and before.plugin is None and plugin is not None:
                    continue
                arguments = frozenset(map(str, node)) | (before.arguments if before else set())
                known[node["_target_"]] = Declaration(node.get("_partial_"), plugin, arguments)
    return targets


def declared_key_path(key_path: KeyPath) -> KeyPath:
    """The key path in the configuration files that corresponds to one in a run.

    The sources of further test datasets (`data.others.NAME`) are like the one of the data.
    """
    return (
        ("data", "source", *key_path[3:])
        if key_path[:2] == ("data", "others") and len(key_path) > 2
        else key_path
    )
