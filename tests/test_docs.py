"""Links, file paths and dotted names in the Markdown files resolve."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "experiments/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
TO_BE_WRITTEN = re.compile(r"NAME|\bmine\b|\bgradient_norm\b|\bclip\b")
"""Files that a reader of docs/extend.md writes."""

LINK = re.compile(r"\]\(([^)\s]+)\)|src(?:set)?=\"([^\"]+)\"")
FILE = re.compile(
    r"(?<![\w/.-])(?:fmsd|conf|docs|tests|benchmarks|experiments)/[\w./+-]*\w\.(?:py|yaml|md|csv|png)"
)
NAME = re.compile(r"(?<![\w./-])fmsd(?:\.\w+)+(?![\w/])")


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


@functools.cache
def names(module: Path) -> set[str]:
    """Functions, classes, methods, constants and imports of a module."""
    nodes = list(ast.walk(ast.parse(module.read_text())))
    return (
        {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        | {node.id for node in nodes if isinstance(node, ast.Name)}
        | {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    )


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a package, a module, or a name that a module defines."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if module.is_file():
            return set(parts[count:]) <= names(module)
    return False


def broken(page: Path) -> Iterator[str]:
    """Yields the links, paths and names of a page that lead nowhere."""
    text = page.read_text()
    for link in (first or second for first, second in LINK.findall(text)):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not link.startswith("http") and (
            not target.exists() or (anchor and anchor not in anchors(target))
        ):
            yield link
    for name in FILE.findall(text):
        if not TO_BE_WRITTEN.search(name) and not (ROOT / name).exists():
            yield name
    for name in NAME.findall(text):
        if not name.endswith(".md") and not TO_BE_WRITTEN.search(name) and not resolves(name):
            yield name


@pytest.mark.parametrize("page", PAGES)
def test_links_paths_and_names_resolve(page: str) -> None:
    assert not list(broken(ROOT / page))


def test_a_broken_reference_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "[a](gone.md) [b](#no-heading) [c](#a-heading) `fmsd/gone.py` `fmsd.gone.name`\n\n"
        "# A heading\n"
    )
    assert list(broken(page)) == ["gone.md", "#no-heading", "fmsd/gone.py", "fmsd.gone.name"]
