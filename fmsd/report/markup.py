"""Tables of a report for the terminal, as Markdown and as LaTeX."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fmsd.metrics.layout import escape_markdown, markdown_table
from fmsd.report.columns import group_sentence
from fmsd.report.tables import Cell, Table

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
} | {char: f"\\{char}" for char in "&%$#_{}"}


def header(table: Table) -> list[str]:
    """The header for the terminal: column names above their counts of videos."""
    names = (
        f"{column}\n{table.videos[column]}" if column in table.videos else column
        for column in table.columns
    )
    return ["", *names]


def video_counts(table: Table) -> str:
    """A sentence on the counts of test videos, for headers without them."""
    parts = [
        f"{column} {table.videos[column].removesuffix(' videos')}"
        for column in table.columns
        if column in table.videos
    ]
    return f"Test videos: {'; '.join(parts)}." if parts else ""


def terminal_rows(table: Table) -> list[list[str]]:
    """The rows for the terminal."""

    def format_cell(cell: Cell) -> str:
        mark = f" ^{cell.mark}" if cell.mark else ""
        around = re.sub(r"p ([=<]) ", r"p\1", cell.around)  # not broken within a p-value
        return f"{cell.number}{around}{_inverted(cell)}{mark}"

    return _format_rows(table, str, format_cell)


def plain_rows(table: Table) -> list[dict[str, Any]]:
    """A row for each value, with its interval, marks and counts of videos, for programs."""
    return [
        {
            "run": label,
            "column": column,
            "level": table.level,
            "metric": table.metric,
            **asdict(cell),
            "videos": table.videos.get(column),
        }
        for label, cells in table.cells.items()
        for column, cell in cells.items()
    ]


def terminal_caption(table: Table, count: int, folder: Path) -> str:
    """The caption for the terminal: number of runs, comparisons, and the meaning of letters.

    Args:
        count: number of runs below the folder.
    """
    lines = [f"{count_noun(count, 'run')} below {folder}"]
    if table.groups:
        lines.append(group_sentence(table))
    if table.has_differences:
        lines.append(table.caption)
    if table.missing_intervals:
        lines.append(table.missing_intervals)
    lines += [f"^{letter} {meaning}" for letter, meaning in table.notes]
    return "\n".join(lines)


def markdown_tables(tables: Sequence[Table]) -> str:
    """Tables as Markdown, each with title, caption and notes."""

    def format_cell(cell: Cell) -> str:
        number = f"**{cell.number}**" if cell.best else cell.number
        mark = f"<sup>{cell.mark}</sup>" if cell.mark else ""
        return f"{number}{cell.around}{_inverted(cell)}{mark}"

    parts = []
    for table in tables:
        rows = _format_rows(table, escape_markdown, format_cell)
        text = markdown_table(["", *map(escape_markdown, table.columns)], rows)
        lines = (
            table.caption,
            escape_markdown(group_sentence(table)),
            escape_markdown(video_counts(table)),
            escape_markdown(table.missing_intervals),
        )
        caption = " ".join(line for line in lines if line)
        notes = "".join(
            f"\n<sup>{letter}</sup> {escape_markdown(meaning)}  " for letter, meaning in table.notes
        )
        parts.append(
            f"## {escape_markdown(table.title)}\n\n{text}"
            + (f"\n{caption}\n" if caption else "")
            + (f"{notes}\n" if notes else "")
        )
    return "\n".join(parts)


def latex_tables(tables: Sequence[Table]) -> str:
    """Tables as LaTeX with the package booktabs."""
    parts = ["% needs \\usepackage{booktabs}", *map(_latex_table, tables)]
    return "\n\n".join(parts) + "\n"


def _latex_table(table: Table) -> str:
    columns = " & ".join(["", *map(escape_latex, table.columns)])
    # {} in front of the label: LaTeX takes a [ after \\ as an argument.
    rows = _format_rows(table, lambda label: f"{{}}{escape_latex(label)}", _latex_cell)
    notes = " ".join(f"$^{{{letter}}}$~{escape_latex(meaning)}." for letter, meaning in table.notes)
    sentences = (
        table.caption,
        group_sentence(table),
        video_counts(table),
        table.missing_intervals,
    )
    text = " ".join(escape_latex(sentence) for sentence in sentences if sentence)
    caption = f"{escape_latex(table.title)}. {text} {notes}".strip().replace("±", "$\\pm$")
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{caption}}}",
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        "\\toprule",
        f"{columns} \\\\",
        "\\midrule",
        *(f"{' & '.join(row)} \\\\" for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines)


def _latex_cell(cell: Cell) -> str:
    number = f"${cell.number}$" if cell.signed else cell.number
    if cell.best:
        number = f"\\textbf{{{cell.number}}}"
    around = escape_latex(cell.around.strip()).replace("±", "$\\pm$").replace("-", "$-$")
    small = f" {{\\scriptsize {around}}}" if around else ""
    mark = f"$^{{{cell.mark}}}$" if cell.mark else ""
    return f"{number}{small}{_inverted(cell)}{mark}"


def escape_latex(text: str) -> str:
    """Escapes text for LaTeX; line breaks become spaces."""
    return re.sub(r"[\\~^<>&%$#_{}]", lambda match: LATEX_ESCAPES[match[0]], " ".join(text.split()))


def _inverted(cell: Cell) -> str:
    return " (inverted)" if cell.inverted else ""


def _format_rows(
    table: Table, format_label: Callable[[str], str], format_cell: Callable[[Cell], str]
) -> list[list[str]]:
    return [
        [
            format_label(label),
            *(format_cell(cells[column]) if column in cells else "-" for column in table.columns),
        ]
        for label, cells in table.cells.items()
    ]


def count_noun(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless it is one."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
