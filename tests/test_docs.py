"""Links, paths, names and commands in the Markdown files work; everything has its page."""

import ast
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fmsd.cli.conf_files import groups
from fmsd.cli.examining import with_unread_data
from fmsd.cli.file_words import split_files
from fmsd.cli.overrides import to_hydra_overrides
from fmsd.package_files import CONF
from fmsd.plugins import LAYERS, PLUGINS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "experiments/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
TO_BE_WRITTEN = re.compile(r"NAME|\bmine\b|\bgradient_norm\b|\bclip\b")
"""Files that a reader of docs/extend.md writes."""

OTHER_PAGES = {"verbs": {"index": "manifest"}, "datasets": {"ff++": "ffpp"}}
"""Pages with another name than what they describe: index.md is the page of its folder."""

DESCRIBED = [
    ("verbs", "."),
    ("methods", "method"),
    ("methods", "wrapper"),
    ("methods", "merger"),
    ("datasets", "data"),
]
"""Folders of pages, and the folders of `conf/` whose files they describe, one each."""

LINK = re.compile(r"\]\(([^)\s]+)\)|src(?:set)?=\"([^\"]+)\"")
FILE = re.compile(
    r"(?<![\w/.-])(?:fmsd|conf|docs|tests|benchmarks|experiments)/[\w./+-]*\w\.(?:py|yaml|md|csv|png)"
)
COMMAND = re.compile(r"^ {4}((?:fmsd|python train\.py) .*)$", re.MULTILINE)
NAME = re.compile(r"(?<![\w./-])fmsd(?:\.\w+)+(?![\w/])")


def without_code(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"```.*?```|^ {4,}.*?$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives the headings of a page."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE)
    }


def described(folder: str, group: str) -> dict[str, str]:
    """The file name of the page of every configuration file that has one."""
    other = OTHER_PAGES.get(folder, {})
    names = [path.stem for path in (CONF / group).glob("*.yaml") if path.stem[0] != "_"]
    return {name: f"{other.get(name, name)}.md" for name in names}


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
        known = name in (PLUGINS, LAYERS) or name.endswith(".md") or TO_BE_WRITTEN.search(name)
        if not known and not resolves(name):
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


@pytest.mark.parametrize(("folder", "group"), DESCRIBED)
def test_everything_has_its_page_and_the_index_lists_it(folder: str, group: str) -> None:
    index = (ROOT / "docs" / folder / "index.md").read_text()
    for name, page in described(folder, group).items():
        assert (ROOT / "docs" / folder / page).is_file(), f"docs/{folder}/{page} is missing"
        rows = [line for line in index.splitlines() if f"]({page})" in line]
        assert any(f"`{name}`" in row for row in rows), f"docs/{folder}/index.md lacks {name}"


@pytest.mark.parametrize("name", sorted(described("datasets", "data")))
def test_the_page_of_a_dataset_has_its_variable_and_its_counts(name: str) -> None:
    file = ROOT / "docs/datasets" / described("datasets", "data")[name]
    page, config = file.read_text(), (CONF / "data" / f"{name}.yaml").read_text()
    if re.search(r"^ *root: \$\{(?!cache)", config, re.MULTILINE):
        assert f"`FMSD_{file.stem.upper()}`" in page
    values = OmegaConf.to_container(OmegaConf.create(config))
    expected = values.get("expected", {}) if isinstance(values, dict) else {}
    counts = {str(count) for domains in expected.values() for count in domains.values()}
    assert counts <= set(re.findall(r"\d+", page.replace(",", "")))


@pytest.mark.parametrize("folder", ["verbs", "methods", "datasets", "concepts"])
def test_every_page_is_listed_in_the_index_of_its_folder(folder: str) -> None:
    pages = {path.name for path in (ROOT / "docs" / folder).glob("*.md")} - {"index.md"}
    listed = {
        link
        for match in LINK.findall((ROOT / "docs" / folder / "index.md").read_text())
        for link in match
    }
    assert pages <= listed


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_a_page_has_one_title(page: str) -> None:
    text = without_code(ROOT / page)
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1


def commands() -> set[str]:
    """The commands on all pages that Hydra composes from the shipped configuration files."""
    texts = (re.sub(r" \\\n +", " ", (ROOT / page).read_text()) for page in PAGES)
    found = {command for text in texts for command in COMMAND.findall(text)}
    other = re.compile(r" --|fmsd (VERB|reproduce|completion)|mypkg|=mine\b")
    return {command for command in found if not other.search(command)}


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(commands()))
def test_the_commands_on_the_pages_compose(command: str) -> None:
    program, verb, *arguments = shlex.split(command, comments=True)
    verb = "train" if program == "python" else verb
    arguments = [argument for argument in arguments if argument != "..."]
    arguments, _ = split_files(verb, with_unread_data(verb, arguments), groups(verb))
    overrides = [
        override
        for override in to_hydra_overrides(verb, arguments, groups(verb))
        if override != "-m" and not override.startswith(("hydra/", "hydra.launcher", "hydra.swee"))
    ]
    parsed = OverridesParser.create().parse_overrides(overrides)
    single = [
        override
        for override, one in zip(overrides, parsed, strict=True)
        if not one.is_sweep_override()
    ]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        assert hydra.compose(verb, single) is not None
