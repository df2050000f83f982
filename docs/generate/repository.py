"""Where files of the repository are on the site."""

import posixpath
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "experiments/README.md": "experiments.md",
    "examples/README.md": "examples/index.md",
}
"""Files outside docs/ and their pages. README.md has none of its own: docs/index.md is the first
page.
"""


class Place(NamedTuple):
    """A place on the site.

    Args:
        page: path of the page, relative to the root of the site.
        anchor: in the page; empty for its top.
    """

    page: str
    anchor: str = ""


def outside_pages() -> dict[str, str]:
    """By page, the Markdown files and notebooks outside docs/ that the site shows."""
    listed = {page: file for file, page in PAGES.items() if file != "README.md"}
    found = {page: file for page, file in listed.items() if (ROOT / file).is_file()}
    for path in sorted(ROOT.glob("examples/*.ipynb")):
        found[f"examples/{path.stem}.md"] = f"examples/{path.name}"
    for path in sorted(ROOT.glob("examples/*/README.md")):
        found[f"examples/{path.parent.name}.md"] = f"examples/{path.parent.name}/README.md"
    return found


def title(markdown: str) -> str:
    """The first heading of a page, without its marks."""
    heading = re.search(r"^# +(.*?)(?: *\{.*\})?$", markdown, re.MULTILINE)
    return heading[1].replace("`", "") if heading else ""


def relative(target: str, page: str) -> str:
    """The link from a page to a target, both relative to the root of the site."""
    return posixpath.relpath(target, posixpath.dirname(page) or ".")
