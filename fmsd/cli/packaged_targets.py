"""The `_target_`s of the packaged configuration files, by the key path of each of them."""

import functools

from fmsd.cli.conf_files import KeyPath, read_conf_file, walk
from fmsd.package_files import CONF

GROUPS = (
    "backbone",
    "data",
    "logger",
    "merger",
    "method",
    "optimizer",
    "schedule",
    "trainer",
    "wrapper",
)
"""The groups of the configuration that are kept in a run."""


@functools.cache
def packaged_targets() -> dict[KeyPath, dict[str, bool | None]]:
    """By key path, each target of the packaged configuration files with its `_partial_`."""
    targets: dict[KeyPath, dict[str, bool | None]] = {}
    for file in sorted([*CONF.glob("*.yaml"), *CONF.glob("*/*.yaml")]):
        package, values = read_conf_file(file)
        for key_path, node in walk(values, package):
            if isinstance(node, dict) and "_target_" in node and key_path and key_path[0] in GROUPS:
                known = targets.setdefault(packaged_key_path(key_path), {})
                known[node["_target_"]] = node.get("_partial_")
    return targets


def packaged_key_path(key_path: KeyPath) -> KeyPath:
    """The key path in the packaged files that corresponds to one in a run.

    The sources of further test datasets (`data.others.NAME`) are like the one of the data.
    """
    return (
        ("data", "source", *key_path[3:])
        if key_path[:2] == ("data", "others") and len(key_path) > 2
        else key_path
    )
