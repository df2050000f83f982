"""The elements of a report's page, and the page: one file that needs nothing else. Every text that comes from outside passes through `escape`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from fmsd.figures.style import line_style
from fmsd.figures.svg import inline_svg
from fmsd.report.comparability import ColumnNotes
from fmsd.report.tables import Cell, Table

FOLDER = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The browser itself sees to it that the page asks nobody for anything."""


@dataclass(frozen=True)
class Section:
    """A part of the page, HTML under a heading."""

    name: str
    title: str
    body: str


def document(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole file."""
    links = "".join(
        f'<li><a href="#{section.name}">{escape(section.title)}</a></li>' for section in sections
    )
    body = "\n".join(
        f'<section id="{section.name}"><h2>{escape(section.title)}</h2>\n{section.body}\n</section>'
        for section in sections
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
<button id="theme" type="button" aria-label="light or dark">light / dark</button>
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


def paragraph(text: str, kind: str = "") -> str:
    """A line of text."""
    return f"<p{attribute('class', kind)}>{escape(text)}</p>"


def number_table(table: Table, shown: Mapping[str, int], heat: bool = False) -> str:
    """A table of numbers with its notes.

    Args:
        shown: the rows that pictures have lines of, and the places of these lines.
        heat: colour the cells by how far they lie above 0.5.
    """
    rows = [
        [
            f"{line_sample(shown[label]) if label in shown else ''}{escape(label)}",
            *(_cell(own.get(column), heat) for column in table.columns),
        ]
        for label, own in table.cells.items()
    ]
    notes = "".join(
        f"<li><sup>{letter}</sup> {escape(meaning)}</li>" for letter, meaning in table.notes
    )
    caption = escape(table.title) + (
        f" <small>{escape(table.caption)}</small>" if table.caption else ""
    )
    header = [
        "",
        *(
            f"{escape(name)}{f'<small>{escape(table.videos[name])}</small>' if name in table.videos else ''}"
            for name in table.columns
        ),
    ]
    lacking = f"<li>{escape(table.lacking)}</li>" if table.lacking else ""
    return _table(caption, header, rows) + (
        f'<ul class="notes">{lacking}{notes}</ul>' if lacking or notes else ""
    )


def text_table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str | float | None]],
    text: Collection[int] = (0,),
) -> str:
    """A table of words and numbers, as they are.

    Args:
        text: the columns that hold words, which stand left.
    """
    lines = [
        [
            escape(str(value))
            if not place
            else f"<td{attribute('class', 'text' if place in text else '')}>{'-' if value is None else escape(str(value))}</td>"
            for place, value in enumerate(row)
        ]
        for row in rows
    ]
    return _table(escape(caption), list(map(escape, header)), lines, text)


def panes_by_choice(panes: Mapping[tuple[str, ...], str], names: Sequence[str]) -> str:
    """Panes of which one is seen, by what is chosen; without scripts all of them.

    Args:
        panes: by the values of the choices, the first of each chosen at first; their headings are
            their own.
        names: of the choices.
    """
    controls, places = [], []
    for place, name in enumerate(names):
        values = dict.fromkeys(key[place] for key in panes)
        places.append({value: str(index) for index, value in enumerate(values)})
        options = "".join(
            f'<option value="{index}">{escape(value)}</option>'
            for index, value in enumerate(values)
        )
        controls.append(
            f"<label>{escape(name)} <select>{options}</select></label>"
            if len(values) > 1
            else f"<select hidden>{options}</select>"
        )
    keys = [" ".join(own[value] for own, value in zip(places, key, strict=True)) for key in panes]
    parts = "".join(
        f'<div class="pane" data-key="{key}">{body}</div>'
        for key, body in zip(keys, panes.values(), strict=True)
    )
    return f'<div class="choice"><p class="controls">{"".join(controls)}</p>{parts}</div>'


def figure_element(figure: Figure, title: str, caption: str) -> str:
    """A figure with what stands below it.

    Args:
        title: no other picture of the page has the same.
    """
    return f"<figure>{inline_svg(figure, title)}<figcaption>{escape(caption)}</figcaption></figure>"


def image_element(kind: str, encoded: str, caption: str) -> str:
    """A picture of pixels.

    Args:
        kind: png, webp, ...
        encoded: the file in base64.
    """
    return (
        f'<figure><img alt="{escape(caption)}" '
        f'src="data:image/{kind};base64,{encoded}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def definition_list(pairs: Mapping[str, str]) -> str:
    """Names and what they stand for."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in pairs.items())}</dl>"


def grid(pictures: Sequence[str], wide: bool = False) -> str:
    """Pictures side by side."""
    return f'<div class="grid{" wide" if wide else ""}">{"".join(pictures)}</div>'


def legend(rows: Mapping[str, int], marks: ColumnNotes) -> str:
    """Whose line is which, with the letters of the rows' numbers."""
    lines = (
        f"<li>{line_sample(place)}{escape(row)}{superscript(marks.of(row))}</li>"
        for row, place in rows.items()
    )
    return f'<ul class="legend">{"".join(lines)}</ul>'


def superscript(mark: str) -> str:
    """The letters of notes."""
    return f"<sup>{escape(mark)}</sup>" if mark else ""


def line_sample(place: int) -> str:
    """A piece of the line at a place."""
    look = line_style(place)
    dashes = (
        ""
        if look["linestyle"] == "solid"
        else " ".join(f"{2.2 * part:g}" for part in look["linestyle"][1])
    )
    path = (
        f'<path d="M1 4H25" stroke="{look["color"]}" stroke-width="2.5" '
        f'fill="none"{attribute("stroke-dasharray", dashes)}/>'
    )
    return f'<svg class="swatch" viewBox="0 0 26 8" aria-hidden="true">{path}</svg>'


def code_block(text: str) -> str:
    """Lines to copy."""
    return (
        '<div class="code"><button type="button" class="copy">copy</button><pre '
        f'tabindex="0"><code>{escape(text)}</code></pre></div>'
    )


def _cell(cell: Cell | None, heat: bool) -> str:
    """A number, what is around it in small."""
    if cell is None:
        return "<td>-</td>"
    number = f"<b>{cell.number}</b>" if cell.best else cell.number
    spread = f"<span>{cell.spread}</span>" if cell.spread else ""
    below = "".join(
        f"<small>{escape(part)}</small>"
        for part in (cell.ends, cell.chance, "inverted" if cell.inverted else "")
        if part
    )
    kinds = " ".join(
        kind
        for kind, wanted in (("best", cell.best), ("inverted", cell.inverted), ("heat", heat))
        if wanted
    )
    look = f"--v:{max(cell.value - 0.5, 0) * 200:.0f}" if heat else ""
    attributes = attribute("class", kinds) + attribute("style", look)
    content = f"{number}{superscript(cell.mark)}{spread}{below}"
    return f'<td data-value="{cell.value:.6g}"{attributes}>{content}</td>'


def attribute(name: str, value: str) -> str:
    """An attribute of an element, where it has a value."""
    return f' {name}="{escape(value)}"' if value else ""


def _table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], text: Collection[int] = (0,)
) -> str:
    """A table that sorts by a click on a header; the first cells of its rows are their names.

    Args:
        rows: HTML; all but the first of each are whole cells.
    """
    kinds = [attribute("class", "text" if place in text else "") for place in range(len(header))]
    names = [name or '<span class="hidden">name</span>' for name in header]
    heads = "".join(
        f'<th scope="col"{kind}><button type="button">{name}</button></th>'
        for kind, name in zip(kinds, names, strict=True)
    )
    lines = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(rest)}</tr>' for first, *rest in rows
    )
    return (
        '<div class="scroll" tabindex="0" role="region" '
        f'aria-label="table"><table><caption><span>{caption}</span></caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>\n{lines}\n</tbody></table></div>"
    )
