"""Texts as Hydra's grammar of overrides and a shell read them."""

import re
import shlex
from pathlib import Path


def hydra_quote(text: str | Path) -> str:
    """Quotes a text so that Hydra reads exactly this text, whatever it holds."""
    plain = re.sub(
        r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), str(text)
    )
    return "'" + plain.replace("${", "\\${") + "'"


def shell_override(key: str, path: str | Path) -> str:
    """The override that gives a key a path, as one types it into a shell."""
    return shlex.quote(f"{key}={path}")
