"""Events of the site's build: pages from outside docs/, generated references, links between all."""

from typing import Any

import configuration
import notebooks
import python_api
from links import PICTURE, RepositoryLinks
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from navigation import expand
from repository import ROOT, outside_pages, title

LAST_FOUND = """---
search:
  boost: 0.3
---
"""
"""Puts the references behind the other pages in the results of a search."""


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
    for page, text in (configuration.pages() | python_api.pages()).items():
        files.append(File.generated(config, page, content=LAST_FOUND + text))
    titles = {page.src_uri: title(page.content_string) for page in files.documentation_pages()}
    config.nav = expand(config.nav or [], titles.keys(), titles)
    places = configuration.places() | python_api.places()
    links = RepositoryLinks(files, origins, places, titles)
    config.markdown_extensions.append(links)  # type: ignore[arg-type]
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Writes each <picture> as its light image; `RepositoryLinks` adds the dark one."""
    return PICTURE.sub(r"![\g<alt>](\g<src>)", markdown)
