"""Texts as Hydra's grammar of overrides reads them."""

import re
from pathlib import Path


def quote(text: str | Path) -> str:
    """Quotes a text so that Hydra reads exactly this text, whatever it holds."""
    plain = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), str(text))
    return "'" + plain.replace("${", "\\${") + "'"
