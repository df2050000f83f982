"""Figures as inline SVG in the font and text colour of the page, with unique ids."""

import hashlib
import io
import re
from html import escape

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex
from matplotlib.figure import Figure


def inline_svg(figure: Figure, title: str) -> str:
    """Renders a figure as an `<svg>` element; black becomes the text colour of the page.

    Args:
        title: text for screen readers, unique on the page: ids inside the SVG derive from it.
    """
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        if to_hex(axes.get_facecolor()) == "#ffffff":
            axes.patch.set_alpha(0)
    output = io.StringIO()
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": hashlib.sha256(title.encode()).hexdigest()}
    ):
        FigureCanvasSVG(figure).print_svg(
            output, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    width, height = 72 * figure.get_size_inches()
    body = output.getvalue().partition("<svg")[2].partition(">")[2]
    body = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL
    )
    body = re.sub(r"<[^>]*>", lambda tag: _simplify_tag(tag[0]), body)
    body = re.sub(r"\n\s*", "\n", body)
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {height:g}"'
    )
    return (
        f'{head} style="width:{width / 72:g}in" fill="currentColor" stroke-linejoin="round" '
        f'role="img" aria-label="{escape(title)}">{body.strip()}'
    )


def _simplify_tag(tag: str) -> str:
    """Drops ids of groups, fonts and superfluous digits; black becomes the text colour."""
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    # Matplotlib does not write black fills; they are inherited from the <svg> element.
    tag = re.sub(r"(stroke|fill): #000000", r"\1: currentColor", tag)
    tag = re.sub(r"font-family: [^;\"]*(; )?", "", tag)
    return tag if tag.startswith("<image") else re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
