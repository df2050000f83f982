"""Quotes texts for Hydra's grammar of overrides, for a shell and for a terminal."""

import re
import shlex
from pathlib import Path


def hydra_quote(text: str | Path, mark: str = "'") -> str:
    """Quotes a text so that Hydra parses it as exactly this text.

    Args:
        mark: single or double quote.
    """
    escaped = re.sub(
        rf"(\\*)({mark}|$)",
        lambda match: match[1] * 2 + (f"\\{mark}" if match[2] else ""),
        str(text),
    )
    return mark + escaped.replace("${", "\\${") + mark


def shell_override(key: str, path: str | Path) -> str:
    """The override that sets a key to a path, quoted for a shell."""
    return shlex.quote(f"{key}={path}")


def printable(text: str) -> str:
    """A text with escapes in place of what a terminal would obey, such as control characters."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
