"""HTML elements of results: tables of values, and the legend of lines."""

from collections.abc import Mapping
from html import escape

from fmsd.report.columns import mean_sizes
from fmsd.report.comparability import ColumnNotes
from fmsd.report.coverage import scored_phrase
from fmsd.report.html import attribute, line_sample, sortable_table, superscript
from fmsd.report.tables import Cell, Table


def number_table(table: Table, lines: Mapping[str, int], heat: bool = False) -> str:
    """A table of results with its notes.

    Args:
        lines: labels shown in figures, with the indices of their line styles.
        heat: colour the cells by their distance above 0.5.
    """
    starts = {columns[0] for _, columns in table.groups}
    rows = [
        [
            (line_sample(lines[label]) if label in lines else "") + escape(label),
            *(_cell(row.get(column), heat, column in starts) for column in table.columns),
        ]
        for label, row in table.cells.items()
    ]
    caption = escape(table.title) + (
        f" <small>{escape(table.caption)}</small>" if table.caption else ""
    )
    below = {**table.videos, **mean_sizes(table)}
    header = [
        escape(name) + (f"<small>{_in_lines(below[name])}</small>" if name in below else "")
        for name in table.columns
    ]
    notes = f"<li>{escape(table.missing_intervals)}</li>" if table.missing_intervals else ""
    notes += "".join(
        f"<li><sup>{letter}</sup> {escape(meaning)}</li>" for letter, meaning in table.notes
    )
    groups = [(name, len(columns)) for name, columns in table.groups]
    above = [("", 1), *groups] if groups else []
    return sortable_table(caption, ["", *header], rows, groups=above) + (
        f'<ul class="notes">{notes}</ul>' if notes else ""
    )


def _in_lines(counts: str) -> str:
    """Counts of videos as HTML, each in a line of its own."""
    return escape(counts).replace(", ", ",<br>")


def legend(lines: Mapping[str, int], notes: ColumnNotes) -> str:
    """The legend of the lines in figures, with the letters of each row.

    Args:
        lines: labels with the indices of their line styles.
    """
    items = (
        f"<li>{line_sample(index)}{escape(label)}{superscript(notes.letters_of(label))}</li>"
        for label, index in lines.items()
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _cell(cell: Cell | None, heat: bool, is_start: bool) -> str:
    """A table cell: the value, and deviation, interval, p-value and coverage in small type.

    Args:
        is_start: it is the first cell of a group.
    """
    if cell is None:
        return f"<td{attribute('class', 'start' if is_start else '')}>-</td>"
    number = f"<b>{cell.number}</b>" if cell.best else cell.number
    spread = f"<span>{cell.spread}</span>" if cell.spread else ""
    below = "".join(
        f"<small>{escape(part)}</small>"
        for part in (
            cell.ends,
            *cell.chance.split(", "),
            scored_phrase(cell.scored),
            "inverted" if cell.inverted else "",
        )
        if part
    )
    flags = (("best", cell.best), ("inverted", cell.inverted), ("heat", heat), ("start", is_start))
    classes = " ".join(name for name, is_set in flags if is_set)
    colour = f"--v:{max(cell.value - 0.5, 0) * 200:.0f}" if heat else ""
    attributes = attribute("class", classes) + attribute("style", colour)
    content = f"{number}{superscript(cell.mark)}{spread}{below}"
    return f'<td data-value="{cell.value:.6g}"{attributes}>{content}</td>'
