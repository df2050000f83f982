"""Pages as HTML and in a browser: their elements, contrast, complaints and requests."""

import contextlib
import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

CONTRAST = """() => {
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) =>
    0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const pixel = colours => {
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const behind = node => node === null
    ? []
    : [...behind(node.parentElement), getComputedStyle(node).backgroundColor];
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (["SCRIPT", "STYLE"].includes(node.tagName)) continue;
    if (!walker.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    const style = getComputedStyle(node), grounds = behind(node), picture = node.closest("svg");
    // text of another colour stands on a cell of its own colour
    if (picture !== null && style.fill !== getComputedStyle(picture).color) continue;
    const colour = picture === null ? style.color : style.fill;
    const front = luminance(pixel([...grounds, colour])), back = luminance(pixel(grounds));
    const contrast = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    found.push([contrast, node.textContent.trim().slice(0, 40), back]);
  }
  return found.sort((one, other) => one[0] - other[0]);
}"""
"""Contrast, text and luminance of the ground of each shown text, the lowest contrast first."""


class Outline(HTMLParser):
    """The elements of a page."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "action", "data", "poster")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@contextlib.contextmanager
def quiet_tab(browser: Any, page: Path) -> Iterator[Any]:
    """Opens a page; at the end there must be no complaint on its console and no request."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    opened.on(
        "console",
        lambda message: (
            complaints.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.on("dialog", lambda dialog: complaints.append(dialog.message))
    opened.goto(page.as_uri())
    yield opened
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]


def tables(page: Path, section: str) -> list[list[list[str]]]:
    """The cells of the tables of a section, as texts with single spaces."""
    part = page.read_text().split(f'<section id="{section}">')[1].split("</section>")[0]
    found = []
    for table in re.findall(r"<tbody>(.*?)</tbody>", part, re.DOTALL):
        rows = re.findall(r"<tr>(.*?)</tr>", table)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
        found.append(
            [[html.unescape(" ".join(re.sub("<.*?>", " ", c).split())) for c in r] for r in cells]
        )
    return found
