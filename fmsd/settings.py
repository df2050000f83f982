"""Configurations in files: YAML of plain data, whoever wrote it."""

from pathlib import Path
from typing import Any

import yaml

from fmsd.errors import InputError, reason

LARGEST = 2**20
"""Characters that a configuration may have: a run's has a few thousand."""

DEEPEST = 32
"""Levels of mappings and lists in each other."""


def parse_settings(text: str, source: str | Path) -> dict[str, Any]:
    """Reads the text of a configuration as plain data.

    Args:
        source: where the text is from, for the message.

    Raises:
        InputError: it is no mapping in YAML, or one of those that `check_yaml` refuses.
    """
    check_yaml(text, source)
    settings = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if not isinstance(settings, dict):
        raise InputError(
            f"{source} is no configuration (it holds no keys)", "put it back, or remove it"
        )
    return settings


def check_yaml(text: str, source: str | Path) -> None:
    """Refuses YAML that could name a Python object, or grow without bound when it is read.

    Runs are written without aliases (`*name`), a few of which stand for billions of values, and
    without tags (`!!name`).

    Args:
        source: where the text is from, for the message.

    Raises:
        InputError: aliases, tags, too many characters or levels, or no YAML at all.
    """
    if len(text) > LARGEST:
        raise InputError(
            f"{source} is no configuration of a run ({len(text):,} characters)",
            f"one has less than {LARGEST:,}",
        )
    depth = 0
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
                event, yaml.CollectionEndEvent
            )
            if isinstance(event, yaml.AliasEvent):
                raise InputError(
                    f"{source} has the YAML alias *{event.anchor}", "write its value in its place"
                )
            if getattr(event, "tag", None) is not None:
                raise InputError(
                    f"{source} has the YAML tag {event.tag}", "write plain values without tags"
                )
            if depth > DEEPEST:
                raise InputError(
                    f"{source} is no configuration of a run (more than {DEEPEST} levels)",
                    "put it back, or remove it",
                )
    except yaml.YAMLError as error:
        raise InputError(
            f"{source} is no configuration ({reason(error)})", "put it back, or remove it"
        ) from error
