"""Parses YAML that may come from a stranger: no tags, no aliases, bounded in size and depth."""

from pathlib import Path
from typing import Any

import yaml

from fmsd.errors import InputError, reason

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's faster loader, in C; PyYAML has it where it was built with libyaml."""

LARGEST = 2**20
"""Characters that a configuration may have; that of a run has a few thousand."""

DEEPEST = 32
"""Levels of nested mappings and lists that a configuration may have."""


def parse_settings(text: str, source: str | Path) -> dict[str, Any]:
    """Parses the text of a configuration into plain data.

    Args:
        source: where the text is from, for the message.

    Raises:
        InputError: it is no YAML mapping, or `check_yaml` rejects it.
    """
    check_yaml(text, source)
    settings = yaml.load(text, Loader=LOADER)
    if not isinstance(settings, dict):
        raise InputError(
            f"{source} is no configuration (it holds no keys)", "put it back, or remove it"
        )
    return settings


def check_yaml(text: str, source: str | Path) -> None:
    """Rejects YAML that could name a Python object, or grow without bound when it is parsed.

    Runs are written without aliases (`*name`), a few of which can stand for billions of values, and
    without tags (`!!name`).

    Args:
        source: where the text is from, for the message.

    Raises:
        InputError: aliases, tags, too many characters or levels, or invalid YAML.
    """
    if len(text) > LARGEST:
        raise InputError(
            f"{source} is no configuration of a run ({len(text):,} characters)",
            f"one has less than {LARGEST:,}",
        )
    depth = 0
    try:
        for event in yaml.parse(text, Loader=LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
                event, yaml.CollectionEndEvent
            )
            if isinstance(event, yaml.AliasEvent):
                raise InputError(
                    f"{source} has the YAML alias *{event.anchor}", "write its value in its place"
                )
            tagged = isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
            if tagged and event.tag is not None:
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
