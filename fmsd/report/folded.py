"""A part of a page that is opened by a click."""

from html import escape


def folded(summary: str, body: str) -> str:
    """HTML that is hidden behind its summary until a click.

    Args:
        body: HTML.
    """
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"
