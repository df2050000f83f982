"""How a run that has begun and is not finished goes on."""

import re
from pathlib import Path

from fmsd.quoting import shell_override

RESTARTED = re.compile("^(detector|scores|experts|run):", re.MULTILINE)
"""A key of configurations that are of no training: of score, import, merge and evaluate."""


def continuation(folder: Path) -> str:
    """What to do about an unfinished run, as a clause."""
    text = (folder / "config.yaml").read_text(encoding="utf-8", errors="replace")
    if RESTARTED.search(text):
        return "give the command again that began it, which begins anew there"
    return f"go on with fmsd train {shell_override('resume', folder)}"
