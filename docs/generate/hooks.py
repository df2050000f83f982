"""Events of the site's build: pages from outside docs/, generated references, links between all."""

from pathlib import Path
from typing import Any

import command_line
import configuration
import notebooks
import python_api
from links import PICTURE, RepositoryLinks, SiteLinks
from lists import indent_by_four
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from navigation import expand
from repository import ROOT, outside_pages, title

LAST_FOUND = """---
search:
  boost: 0.3
---
"""
"""Puts the references behind the other pages in the results of a search."""


class Site:
    """What the events of a build share."""

    links: SiteLinks


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages that docs/ does not hold, and expands the navigation by all pages."""
    origins = outside_pages()
    for page, origin in origins.items():
        if origin.endswith(".ipynb"):
            rendered = notebooks.render(ROOT / origin)
            files.append(File.generated(config, page, content=rendered.markdown))
            for name, picture in rendered.pictures.items():
                files.append(File.generated(config, f"examples/{name}", content=picture))
        else:
            files.append(File.generated(config, page, abs_src_path=str(ROOT / origin)))
    generated = {
        **configuration.pages(),
        **python_api.pages(),
        command_line.PAGE: command_line.page(),
    }
    for page, text in generated.items():
        files.append(File.generated(config, page, content=LAST_FOUND + text))
    titles = {page.src_uri: title(page.content_string) for page in files.documentation_pages()}
    config.nav = expand(config.nav or [], titles.keys(), titles)
    places = configuration.places() | python_api.places()
    Site.links = SiteLinks(files, origins, places, titles)
    config.markdown_extensions.append(RepositoryLinks(Site.links))  # type: ignore[arg-type]
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Notes which page is rendered, for its links, and adapts its Markdown."""
    Site.links.page = page.file.src_uri
    return indent_by_four(PICTURE.sub(r"![\g<alt>](\g<src>)", markdown))


def on_post_build(*, config: MkDocsConfig) -> None:
    """Writes the search index as a script, too: pages opened as files cannot fetch the other."""
    index = Path(config.site_dir, "search", "search_index.json")
    text = index.read_text(encoding="utf-8")
    index.with_suffix(".js").write_text(f"var __index = {text};\n", encoding="utf-8")
