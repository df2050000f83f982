"""Figures as SVG inside a page: its font, its ink in light and dark, no background, and no name that another picture has, too."""

import hashlib
import io
import re
from html import escape

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex
from matplotlib.figure import Figure


def inline_svg(figure: Figure, title: str) -> str:
    """An `<svg>` element; black becomes the colour of the text around it.

    Args:
        title: what the picture shows, for those who do not see it; no other picture of the page has
            the same.
    """
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        if to_hex(axes.get_facecolor()) == "#ffffff":
            axes.patch.set_alpha(0)
    drawn = io.StringIO()
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": hashlib.sha256(title.encode()).hexdigest()}
    ):
        FigureCanvasSVG(figure).print_svg(
            drawn, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    width, height = (72 * size for size in figure.get_size_inches())
    body = drawn.getvalue().partition("<svg")[2].partition(">")[2]
    body = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL
    )
    body = re.sub(r"<[^>]*>", lambda tag: _spare(tag[0]), body)
    body = re.sub(r"\n\s*", "\n", body)
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {height:g}"'
    )
    return (
        f'{head} style="width:{width / 72:g}in" fill="currentColor" stroke-linejoin="round" '
        f'role="img" aria-label="{escape(title)}">{body.strip()}'
    )


def _spare(tag: str) -> str:
    """A tag in the ink of the page, without names, fonts and digits that are of no use there."""
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(
        r"(stroke|fill): #000000", r"\1: currentColor", tag
    )  # black fills are not written at all: they are the whole picture's
    tag = re.sub(r"font-family: [^;\"]*(; )?", "", tag)
    return tag if tag.startswith("<image") else re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
