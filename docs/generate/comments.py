"""Comments of configuration files as Markdown."""

import html
import re

MARKS = re.compile(r"([\\*_\[\]|])")
"""Characters that mean something in Markdown."""

ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def prose(text: str) -> str:
    """A comment as Markdown: code spans stay, other marks are escaped, arXiv numbers are links."""
    parts = re.split(r"(`[^`]+`|(?:docs|experiments|benchmarks|conf|fmsd)/[\w./+-]+\w)", text)
    return "".join(
        _escape(part) if place % 2 == 0 else f"`{part.strip('`')}`"
        for place, part in enumerate(parts)
    )


def _escape(text: str) -> str:
    """Text with the marks of Markdown escaped, and with links to arXiv."""
    escaped = MARKS.sub(r"\\\1", html.escape(text, quote=False))
    return ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", escaped)


def code(text: str) -> str:
    """A value as code; nothing for no value."""
    if not text:
        return ""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|")


def row(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"
