"""Notebooks as Markdown: the text, the code, and the output that was saved with it."""

import base64
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""Escape sequences by which a terminal sets colours."""


class Rendered(NamedTuple):
    """A notebook as a page.

    Args:
        markdown: the page.
        pictures: the pictures of its outputs, by the names that the page has for them.
    """

    markdown: str
    pictures: dict[str, bytes]


def render(path: Path) -> Rendered:
    """A notebook as a page with pictures named after it."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = _text(cell["source"]).strip("\n")
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(_fence(source, "python"))
            for output in cell["outputs"]:
                data = output.get("data", {})
                if "image/png" in data:
                    name = f"{path.stem}_{len(pictures)}.png"
                    pictures[name] = base64.b64decode(_text(data["image/png"]))
                    parts.append(f"![Output of the cell above]({name})")
                else:
                    shown = output.get("text", data.get("text/plain", output.get("traceback", "")))
                    text = COLOURS.sub("", _text(shown)).strip("\n")
                    parts.extend([_fence(text, "{ .text .output }")] if text.strip() else [])
    parts.append(f"The notebook is `examples/{path.name}`.")
    return Rendered("\n\n".join(parts) + "\n", pictures)


def _text(value: Any) -> str:
    """A text that the format keeps whole or as a list of lines."""
    return value if isinstance(value, str) else "".join(value)


def _fence(text: str, language: str) -> str:
    """A code block; its fence is longer than any inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
