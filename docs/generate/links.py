"""Links of a repository as links of a site.

A page that is read on its own in the repository links to other files: these links lead to the page
of that file on the site. Source files have none; those of the package lead to their module in the
Python API, and the others become plain text. A link to nothing is left as it is, so that the build
refuses it.
"""

import posixpath
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from markdown.util import AtomicString
from mkdocs.structure.files import Files
from repository import ROOT, Place, relative

FILE = re.compile(r"(?:docs|experiments|benchmarks|examples|conf|fmsd)/[\w./+-]+\.(?:py|yaml|md)")
"""A file that a page names in code."""

NAME = re.compile(r"fmsd(?:\.\w+)+")
"""A module of the package, or a name in it."""

PICTURE = re.compile(
    r"<picture>.*?<img\b(?=[^>]*\bsrc=\"(?P<src>[^\"]+)\")(?=[^>]*\balt=\"(?P<alt>[^\"]+)\").*?"
    r"</picture>",
    re.DOTALL,
)
"""A picture for light and dark colours of the system; the site has a switch of its own."""


class RepositoryLinks(Extension):
    """Turns the links of every page that is rendered.

    Args:
        files: of the site.
        origins: by page, the file outside docs/ that it is made from.
        places: by file of the repository that is no page, its place on the site.
        titles: by page, its title.
    """

    def __init__(
        self,
        files: Files,
        origins: Mapping[str, str],
        places: Mapping[str, Place],
        titles: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.files = files
        self.origins = origins
        self.titles = titles
        self.places = {
            **places,
            **{f"docs/{uri}": Place(uri) for uri in files.src_uris},
            **{origin: Place(page) for page, origin in origins.items()},
            "README.md": Place("index.md"),
        }

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  Python-Markdown's name
        """Runs after the parts of a line are known and before MkDocs checks the links."""
        md.treeprocessors.register(_LinkProcessor(md, self), "repository_links", 2)

    def resolve(self, link: str, page: str) -> str | None:
        """The link of a page on the site; None if it leads to a file that has no place there."""
        path, mark, anchor = link.partition("#")
        if not path or re.match(r"[a-z]+:|/", path):
            return link
        origin = self.origins.get(page, f"docs/{page}")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        place = self.places.get(file) or self.places.get(f"{file}/index.md")
        if place is not None:
            return relative(place.page, page) + (
                mark + anchor if mark else f"#{place.anchor}" if place.anchor else ""
            )
        exists = (ROOT / file).exists() and not file.startswith(("docs/", ".."))
        return None if exists else link


class _LinkProcessor(Treeprocessor):
    def __init__(self, md: Markdown, links: RepositoryLinks) -> None:
        super().__init__(md)
        self.links = links

    @property
    def page(self) -> str:
        """The page that is rendered; MkDocs sets it in its own processor of links."""
        mkdocs: Any = self.md.treeprocessors["relpath"]
        return mkdocs.file.src_uri

    def run(self, root: ET.Element) -> None:
        """Turns the links below an element; in code in a table, frees the bars of their marks."""
        for cell in (*root.iter("td"), *root.iter("th")):
            for code in cell.iter("code"):
                code.text = AtomicString((code.text or "").replace("\\|", "|"))
        self._turn(root, linked=False)

    def _turn(self, element: ET.Element, linked: bool) -> None:
        """Turns an element and those below it.

        Args:
            linked: it lies in a link, a heading or a block of code, where no link is added.
        """
        if element.tag == "a" and "href" in element.attrib:
            target = self.links.resolve(element.attrib["href"], self.page)
            if target is None:
                element.tag = "span"
                del element.attrib["href"]
            else:
                element.set("href", target)
        elif element.tag == "code" and not linked:
            self._link_code(element)
            return
        linked = linked or re.fullmatch("a|pre|h[1-6]", str(element.tag)) is not None
        for place, child in reversed(list(enumerate(element))):
            self._turn(child, linked)
            if child.tag == "img":
                self._turn_image(element, place, child)

    def _turn_image(self, parent: ET.Element, place: int, image: ET.Element) -> None:
        """Turns the source of a picture; one of two for light and dark gets the other beside it."""
        image.set("src", self.links.resolve(image.get("src", ""), self.page) or "")
        image.set("loading", "lazy")
        source = image.get("src", "")
        other = source.replace("_light.", "_dark.")
        origin = posixpath.normpath(posixpath.join(posixpath.dirname(self.page), other))
        if other != source and self.links.files.get_file_from_path(origin):
            image.set("src", f"{source}#only-light")
            dark = ET.Element("img", {**image.attrib, "src": f"{other}#only-dark"})
            image.tail, dark.tail = None, image.tail
            parent.insert(place + 1, dark)

    def _link_code(self, code: ET.Element) -> None:
        """Links the name of a file or of a module to its place; others stay as they are."""
        text = "".join(code.itertext())
        attributes: dict[str, Any] = {}
        if FILE.fullmatch(text) and (place := self.links.places.get(text)):
            anchor = f"#{place.anchor}" if place.anchor else ""
            attributes["href"] = relative(place.page, self.page) + anchor
            if text.startswith("docs/"):
                code.tag = "a"
                code.set("href", attributes["href"])
                code.text = self.links.titles.get(place.page, text).partition(":")[0]
                return
        elif NAME.fullmatch(text):
            attributes = {"identifier": text, "optional": ""}
        if attributes:
            code.tag = "a" if "href" in attributes else "autoref"
            code.attrib.update(attributes)
            code.text = None
            ET.SubElement(code, "code").text = AtomicString(text)
