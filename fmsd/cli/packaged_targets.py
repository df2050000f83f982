"""The `_target_`s of the packaged configuration files, by the place where each of them stands."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import yaml

from fmsd.cli.conf_files import CONF

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


Place = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""


def walk(node: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value of nested mappings and lists with its place, from the outside in."""
    yield place, node
    children = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, child in children:
        yield from walk(child, (*place, key))


@functools.cache
def packaged_targets() -> dict[Place, dict[str, bool | None]]:
    """By place, each target of the packaged configuration files with its `_partial_`."""
    targets: dict[Place, dict[str, bool | None]] = {}
    for path in sorted([*CONF.glob("*.yaml"), *CONF.glob("*/*.yaml")]):
        text = path.read_text(encoding="utf-8")
        header = re.search(r"^# @package (\S+)", text, re.MULTILINE)
        name = header[1] if header else ".".join(path.parent.relative_to(CONF).parts)
        root: Place = () if name in ("_global_", "") else tuple(name.split("."))
        for place, node in walk(yaml.safe_load(text), root):
            if isinstance(node, dict) and "_target_" in node and place and place[0] in GROUPS:
                targets.setdefault(packaged_place(place), {})[node["_target_"]] = node.get(
                    "_partial_"
                )
    return targets


def packaged_place(place: Place) -> Place:
    """The place in the packaged files that corresponds to a place in a run.

    The sources of further test datasets (`data.others.NAME`) are like the one of the data.
    """
    return (
        ("data", "source", *place[3:])
        if place[:2] == ("data", "others") and len(place) > 2
        else place
    )


def dotted_key(place: Place) -> str:
    """A place as a dotted key, for messages."""
    return ".".join(map(str, place)) or "the top level"
