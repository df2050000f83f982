"""The navigation: the pages of a folder in the order in which a reader looks for them."""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from fmsd.cli.conf_files import choices
from fmsd.cli.main import USAGE

Entry = dict[str, Any]
"""A title with a page, or with the entries below it."""

METHOD_GROUPS = {"Methods": "method", "Optimizer wrappers": "wrapper", "Mergers": "merger"}
"""Headings below Methods, and the groups of the configuration that they show."""

VERB_OF_PAGE = {"manifest": "index"}
"""Pages of a verb that have another name, since `index` is the page of the folder."""


def verbs() -> list[str]:
    """The verbs in the order of `fmsd --help`."""
    return list(dict.fromkeys(re.findall(r"^  ([a-z]+)  ", USAGE, re.MULTILINE)))


def expand(nav: Sequence[Any], pages: Collection[str], titles: dict[str, str]) -> list[Any]:
    """Replaces each folder by its pages, and leaves out pages of files that are not there.

    Args:
        nav: entries `title: page`, `title: folder/` and `title: entries`.
        pages: paths of all pages, relative to the root of the site.
        titles: of the pages.
    """
    expanded: list[Any] = []
    for entry in nav:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            target = expand(target, pages, titles)
        elif target.endswith("/"):
            target = _folder(target, pages, titles)
        elif target not in pages:
            continue
        if target:
            expanded.append({title: target})
    return expanded


def _folder(folder: str, pages: Iterable[str], titles: dict[str, str]) -> list[Any]:
    """The pages below a folder, its index first."""
    below = {
        page.removeprefix(folder).removesuffix(".md"): page
        for page in pages
        if page.startswith(folder)
    }
    index = [page for name, page in below.items() if name == "index"]
    below.pop("index", None)
    if folder == "methods/":
        return [*index, *_methods(below, titles)]
    names = {name: titles[page].partition(":")[0] for name, page in below.items()}
    order = sorted(below, key=lambda name: names[name].lower())
    if folder == "verbs/":
        names = {name: VERB_OF_PAGE.get(name, name) for name in below}
        known = verbs()
        order.sort(key=lambda name: known.index(names[name]) if names[name] in known else 99)
    return [*index, *({names[name]: below[name]} for name in order)]


def _methods(below: dict[str, str], titles: dict[str, str]) -> list[Entry]:
    """The pages of methods, wrappers and mergers apart; others stay beside them."""
    rest = dict(below)
    sections: list[Entry] = []
    for heading, group in METHOD_GROUPS.items():
        found = [rest.pop(choice) for choice in choices(group) if choice in rest]
        sections.append({heading: [{titles[page].partition(":")[0]: page} for page in found]})
    return [*sections, *({titles[page].partition(":")[0]: page} for page in rest.values())]
