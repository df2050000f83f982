"""The documentation site: whole, readable on a phone, and without the network."""

import html
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from fmsd.cli.conf_files import choices, default_choices, dotted_values, read_conf_file
from fmsd.cli.help import help_page
from fmsd.package_files import CONF

ROOT = Path(__file__).parents[1]
PARTS = (
    "mkdocs.yml", "docs", "conf", "experiments", "benchmarks", "examples", "fmsd", "README.md",
    "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md",
)  # fmt: skip
"""What the site is built from."""

VERBS = sorted(path.stem for path in CONF.glob("*.yaml"))
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
"""Elements that load an address, and their attribute; of links, those with a relation below."""

RELATIONS = {"stylesheet", "icon", "preload", "preconnect", "prefetch", "dns-prefetch", "manifest"}
ABROAD = re.compile(r"(?:https?:)?//")


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Builds the site of a checkout as `make docs` does."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed: no site is built")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    ended = build(ROOT, out)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return out


class Outline(HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.classes: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self.classes.update(values.get("class", "").split())
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if LOADED.get(tag) in values:
            self.loads.append(values[LOADED[tag]])
        if tag == "link" and RELATIONS & set(values.get("rel", "").split()):
            self.loads.append(values["href"])


@pytest.fixture(scope="module")
def outlines(site: Path) -> dict[str, Outline]:
    return {
        path.relative_to(site).as_posix(): Outline(path) for path in sorted(site.rglob("*.html"))
    }


@pytest.mark.slow
def test_nothing_is_loaded_from_the_network(site: Path, outlines: dict[str, Outline]) -> None:
    assert [
        (page, address)
        for page, outline in outlines.items()
        for address in outline.loads
        if ABROAD.match(address)
    ] == []
    assert not any("mermaid" in outline.classes for outline in outlines.values())  # from a CDN
    for path in [*site.rglob("*.css"), *site.rglob("*.html")]:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"url\(\s*[\"']?(?:https?:)?//[^)]*", text) == [], path
        assert re.findall(r"@import[^;]*//[^;]*", text) == [], path


@pytest.mark.slow
def test_every_link_leads_to_a_page_and_an_anchor_of_it(outlines: dict[str, Outline]) -> None:
    broken = []
    for page, outline in outlines.items():
        for link in outline.links:
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:|//", path) or page == "404.html":
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path or "."))
            target = target if path else page
            known = outlines.get(unquote(target))
            if known is None or (anchor and unquote(anchor) not in known.anchors):
                broken.append((page, link))
    assert broken == []


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_command_line_with_what_its_help_shows(verb: str, site: Path) -> None:
    text = (site / "reference/command_line.html").read_text(encoding="utf-8")
    section = text.partition(f'<h2 id="{verb}"')[2].partition("<h2")[0]
    keys, _, rest = help_page(verb).partition("Keys, with")[2].partition("Groups, with")
    names = re.findall(r"^  ([\w.]+)", keys + rest.partition("Keys of a choice")[0], re.MULTILINE)
    assert section
    assert [name for name in names if f"<code>{name}</code>" not in section] == []


GROUPS = sorted({group for verb in VERBS for group in default_choices(verb)} | {"loader"})


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_and_every_key_of_it_is_in_the_configuration(group: str, site: Path) -> None:
    text = (site / f"reference/configuration/{group}.html").read_text(encoding="utf-8")
    sections = {
        re.split(r"</?h2[^>]*>", section)[1].partition("<a")[0]: section
        for section in re.split(r"(?=<h2)", text)[1:]
    }
    assert set(choices(group)) <= set(sections)
    for choice in choices(group):
        shown = set(re.findall(r"<td><code>([^<]+)</code></td>\n<td>", sections[choice]))
        file = read_conf_file(CONF / group / f"{choice}.yaml")
        for key, value in dotted_values(file.values, file.package).items():
            parts = key.split(".")
            if isinstance(value, dict) or any(part.startswith("_") for part in parts):
                continue
            if not {"defaults", "hydra"} & set(parts):  # the key, or a mapping in one line
                names = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
                assert names & shown, f"{choice}: {key}"


@pytest.mark.slow
@pytest.mark.parametrize("group", ["method", "wrapper", "merger"])
def test_every_method_has_a_page_with_its_module_linked(
    group: str, outlines: dict[str, Outline]
) -> None:
    for choice in choices(group):
        links = outlines[f"methods/{choice}.html"].links
        assert any(link.startswith("../reference/python/fmsd.") for link in links), choice


@pytest.mark.slow
def test_the_python_api_has_public_names_with_their_shapes(
    site: Path, outlines: dict[str, Outline]
) -> None:
    peft = outlines["reference/python/fmsd.peft.html"].anchors
    assert {"fmsd.peft.mask.Masking", "fmsd.peft.inject.inject"} <= peft
    assert not [name for name in peft if "._" in name]
    for page, shape in (("fmsd", "out in"), ("fmsd.optim", "parameters")):
        text = (site / f"reference/python/{page}.html").read_text(encoding="utf-8")
        text = html.unescape(re.sub(r"<[^>]+>", "", text))
        assert f'Float[Tensor, "{shape}"]' in text


@pytest.mark.slow
def test_a_broken_link_and_a_broken_anchor_fail(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    skipped = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, checkout / part, symlinks=True, ignore=skipped)
        elif (ROOT / part).is_file():
            shutil.copy(ROOT / part, checkout / part)
    page = checkout / "docs" / "quickstart.md"
    page.write_text(
        page.read_text() + "\n[a](gone.md), [b](index.md#no-such-heading), [c](../fmsd/gone.py)\n"
    )
    ended = build(checkout, tmp_path / "site")
    assert ended.returncode == 1
    for link in ("gone.md", "#no-such-heading", "../fmsd/gone.py"):
        assert re.search(rf"WARNING.*{re.escape(link)}", ended.stderr), link


BLOCKS = {"ul", "ol", "li", "pre", "table", "tr", "blockquote", "p", "h2", "h3"}


def blocks(text: str) -> Counter[str]:
    """How many elements of each kind a part of a page has."""
    return Counter(tag for tag in re.findall(r"<(\w+)[\s>]", text) if tag in BLOCKS)


@pytest.mark.slow
def test_pages_have_the_lists_tables_and_code_that_a_repository_shows(site: Path) -> None:
    commonmark = MarkdownIt("commonmark").enable("table")
    pages = {path.relative_to(ROOT / "docs"): path for path in (ROOT / "docs").rglob("*.md")}
    for name in ("experiments", "benchmarks"):
        pages[Path(f"{name}.md")] = ROOT / name / "README.md"
    for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY"):
        pages[Path(f"{name.lower()}.md")] = ROOT / f"{name}.md"
    for page, path in pages.items():
        built = (site / page.with_suffix(".html")).read_text(encoding="utf-8")
        article = built.partition("<article")[2].partition("</article>")[0]
        assert blocks(article) == blocks(commonmark.render(path.read_text())), page


WIDTH = 390
"""Pixels of a phone."""


@pytest.mark.slow
def test_no_page_scrolls_sideways_on_a_phone_or_asks_the_network(
    browser: Any, site: Path, outlines: dict[str, Outline]
) -> None:
    context = browser.new_context(offline=True, viewport={"width": WIDTH, "height": 844})
    tab = context.new_page()
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    wide = {}
    for page in outlines:
        if page != "404.html":  # its addresses are those of a server
            tab.goto((site / page).as_uri())
            wide[page] = tab.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert {page: width for page, width in wide.items() if width > WIDTH} == {}
    assert len(wide) > 50
    assert {url for url in requests if not url.startswith(("file:", "data:", "about:"))} == set()


@pytest.mark.slow
def test_the_search_finds_a_method_in_files_that_nobody_serves(browser: Any, site: Path) -> None:
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    tab.goto((site / "index.html").as_uri())
    tab.locator("input.md-search__input").click()
    tab.keyboard.type("aligned gradients", delay=20)
    found = tab.locator(".md-search-result__item a").first
    found.wait_for(timeout=20_000)
    assert found.get_attribute("href")
    tab.close()


@pytest.mark.slow
def test_colours_follow_the_system_until_they_are_chosen(browser: Any, site: Path) -> None:
    for system, scheme, other in (("light", "default", "slate"), ("dark", "slate", "default")):
        context = browser.new_context(color_scheme=system, viewport={"width": 1440, "height": 900})
        tab = context.new_page()
        tab.goto((site / "index.html").as_uri())
        colours = tab.locator("body")
        assert colours.get_attribute("data-md-color-scheme") == scheme
        seen = set()
        for _ in range(3):
            tab.locator("form[data-md-component=palette] label:not([hidden])").click()
            seen.add(colours.get_attribute("data-md-color-scheme"))
        assert seen == {scheme, other}
        context.close()


@pytest.fixture
def notebooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(ROOT / "docs" / "generate")
    import notebooks

    yield notebooks
    sys.modules.pop("notebooks")


def test_a_notebook_becomes_text_code_and_output(notebooks: Any, tmp_path: Path) -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["\x1b[1mAUC\x1b[0m 0.9\n", "```\n"]},
        {"output_type": "display_data", "data": {"image/png": "aGVsbG8=", "text/plain": "Figure"}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Text"]},
        {"cell_type": "code", "source": "print('AUC', 0.9)", "outputs": outputs},
        {"cell_type": "code", "source": "", "outputs": []},
    ]
    path = tmp_path / "train.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    page = notebooks.render(path)
    assert page.markdown == (
        "# Title\nText\n\n```python\nprint('AUC', 0.9)\n```\n\n"
        "````{ .text .output }\nAUC 0.9\n```\n````\n\n"
        "![Output of the cell above](train_0.png)\n\nThe notebook is `examples/train.ipynb`.\n"
    )
    assert page.pictures == {"train_0.png": b"hello"}
