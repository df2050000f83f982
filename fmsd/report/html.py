"""HTML elements of a page, and the document: one file without external resources.

All text passes through `escape`. Needs no torch, as the page of a prediction is made without it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from fmsd.figures.style import line_style
from fmsd.figures.svg import inline_svg

FOLDER = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""Content security policy by which the browser loads nothing from elsewhere."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        name: its anchor.
        title: its heading.
        body: HTML below the heading.
        is_folded: it is opened by a click on its heading, or by a link to it.
    """

    name: str
    title: str
    body: str
    is_folded: bool = False


def document(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The HTML document."""
    links = "".join(
        f'<li><a href="#{section.name}">{escape(section.title)}</a></li>' for section in sections
    )
    body = "\n".join(map(section_element, sections))
    unfold = (
        '<button id="unfold" type="button" hidden>open all</button>'
        if any(section.is_folded for section in sections)
        else ""
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{(FOLDER / "page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<div><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></div>
<div class="tools">{unfold}<button id="theme" type="button" \
aria-label="light or dark">light / dark</button></div>
</header>
<div class="columns">
<nav aria-label="contents"><ol>{links}</ol></nav>
<main>
{body}
</main>
</div>
<script>
{(FOLDER / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def section_element(section: Section) -> str:
    """A section with its heading."""
    heading, body = f"<h2>{escape(section.title)}</h2>", section.body
    if section.is_folded:
        content = f"<details><summary>{heading}</summary>\n{body}\n</details>"
        return f'<section id="{section.name}">{content}</section>'
    return f'<section id="{section.name}">{heading}\n{body}\n</section>'


def folded(summary: str, body: str) -> str:
    """A part of a section that a click on its summary opens."""
    return f"<details><summary>{escape(summary)}</summary>\n{body}\n</details>"


def paragraph(text: str, css_class: str = "") -> str:
    """A paragraph of text with an optional CSS class."""
    return f"<p{attribute('class', css_class)}>{escape(text)}</p>"


def text_table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str | float | None]],
    text: Collection[int] = (0,),
) -> str:
    """A table of plain values; None is shown as `-`.

    Args:
        text: the indices of left-aligned columns.
    """

    def cell(value: str | float | None, column: int) -> str:
        content = "-" if value is None else escape(str(value))
        return f"<td{attribute('class', 'text' if column in text else '')}>{content}</td>"

    lines = [
        [escape(str(first)), *(cell(value, column) for column, value in enumerate(rest, 1))]
        for first, *rest in rows
    ]
    return sortable_table(escape(caption), list(map(escape, header)), lines, text)


def panes_by_choice(panes: Mapping[tuple[str, ...], str], names: Sequence[str]) -> str:
    """Panes of which one is visible, selected by menus.

    Without scripts the first one is visible, and each other one is opened by a click on its name.

    Args:
        panes: HTML by the values of the menus. The first value of each menu is selected.
        names: labels of the menus.
    """
    controls, indices = [], []
    for position, name in enumerate(names):
        values = dict.fromkeys(key[position] for key in panes)
        indices.append({value: str(index) for index, value in enumerate(values)})
        options = "".join(
            f'<option value="{index}">{escape(value)}</option>'
            for index, value in enumerate(values)
        )
        controls.append(
            f"<label>{escape(name)} <select>{options}</select></label>"
            if len(values) > 1
            else f"<select hidden>{options}</select>"
        )
    keys = [
        " ".join(menu[value] for menu, value in zip(indices, key, strict=True)) for key in panes
    ]
    parts = "".join(
        f'<details class="pane" data-key="{key}"{" open" if place == 0 else ""}>'
        f"<summary>{escape(', '.join(values))}</summary>{body}</details>"
        for place, (key, (values, body)) in enumerate(zip(keys, panes.items(), strict=True))
    )
    return f'<div class="choice"><p class="controls">{"".join(controls)}</p>{parts}</div>'


def figure_element(figure: Figure, title: str, caption: str) -> str:
    """A matplotlib figure below its caption.

    Args:
        title: unique on the page, see `fmsd.figures.svg.inline_svg`.
    """
    return f"<figure><figcaption>{escape(caption)}</figcaption>{inline_svg(figure, title)}</figure>"


def image_element(kind: str, encoded: str, caption: str) -> str:
    """A raster image below its caption.

    Args:
        kind: png, webp, ...
        encoded: the file in base64.
    """
    text = escape(caption)
    source = f"data:image/{kind};base64,{encoded}"
    return f'<figure><figcaption>{text}</figcaption><img alt="{text}" src="{source}"></figure>'


def reference(text: str, link: tuple[str, str] | None, note: str) -> str:
    """A paper as an item of a list, with a note in small type.

    Args:
        link: its name and its address, which the browser opens only by a click.
    """
    address = ""
    if link is not None:
        address = f', <a href="{escape(link[1])}" rel="noreferrer">{escape(link[0])}</a>'
    return f"<li>{escape(text)}{address} <small>{escape(note)}</small></li>"


def definition_list(pairs: Mapping[str, str]) -> str:
    """A list of names with values."""
    items = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs.items())
    return f"<dl>{''.join(items)}</dl>"


def grid(figures: Sequence[str], wide: bool = False) -> str:
    """Figures side by side."""
    return f'<div class="grid{" wide" if wide else ""}">{"".join(figures)}</div>'


def superscript(mark: str) -> str:
    """Letters of notes in superscript."""
    return f"<sup>{escape(mark)}</sup>" if mark else ""


def line_sample(index: int) -> str:
    """A short sample of the line with a style index."""
    style = line_style(index)
    dashes = ""
    if style["linestyle"] != "solid":
        dashes = " ".join(f"{2.2 * part:g}" for part in style["linestyle"][1])
    path = (
        f'<path d="M1 4H25" stroke="{style["color"]}" stroke-width="2.5" '
        f'fill="none"{attribute("stroke-dasharray", dashes)}/>'
    )
    return f'<svg class="swatch" viewBox="0 0 26 8" aria-hidden="true">{path}</svg>'


def code_block(text: str) -> str:
    """Lines of code with a button that copies them."""
    return (
        '<div class="code"><button type="button" class="copy">copy</button><pre '
        f'tabindex="0"><code>{escape(text)}</code></pre></div>'
    )


def attribute(name: str, value: str) -> str:
    """An HTML attribute; empty text for an empty value."""
    return f' {name}="{escape(value)}"' if value else ""


def sortable_table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    text: Collection[int] = (0,),
    groups: Sequence[tuple[str, int]] = (),
) -> str:
    """A table that is sorted by a click on a header; the first cell of a row is its heading.

    Args:
        header: HTML; an empty name, that of the column of rows, is shown as `row`.
        rows: HTML: the content of the heading, then complete `<td>` elements.
        text: the indices of left-aligned columns.
        groups: names above neighbouring columns, and how many each is of.
    """
    above = "".join(
        f'<th scope="colgroup" colspan="{count}"><span>{escape(name)}</span></th>'
        if name
        else f'<td colspan="{count}"></td>'
        for name, count in groups
    )
    above = f'<tr class="groups">{above}</tr>' if above else ""
    classes = [attribute("class", "text" if index in text else "") for index in range(len(header))]
    names = [name or "row" for name in header]
    heads = "".join(
        f'<th scope="col"{css_class}><button type="button">{name}</button></th>'
        for css_class, name in zip(classes, names, strict=True)
    )
    lines = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(rest)}</tr>' for first, *rest in rows
    )
    return (
        '<div class="scroll" tabindex="0" role="region" '
        f'aria-label="table"><table><caption><span>{caption}</span></caption>'
        f"<thead>{above}<tr>{heads}</tr></thead><tbody>\n{lines}\n</tbody></table></div>"
    )
