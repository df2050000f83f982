"""Tables and progress on the terminal."""

import contextlib
import functools
import logging
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fmsd.json_output import open_document

log = logging.getLogger(__name__)

Item = TypeVar("Item")


def print_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    text_columns: Collection[str] = (),
    *,
    name: str,
    records: Sequence[Mapping[str, Any]],
) -> None:
    """Prints a table with a caption; the first column is left-aligned, the others right-aligned.

    Lines are broken between words. Where the longest words do not fit beside each other, every row
    is a block with a line for each column. A file or pipe is 200 characters wide. Nothing is
    printed if there are no rows. With `--json` the records go into the document, and nothing is
    printed.

    Args:
        text_columns: further columns that are left-aligned.
        name: the name of the table in the document; tables of one name are joined.
        records: what the rows show, by plain keys and in full precision.
    """
    if (document := open_document()) is not None:
        document.add_rows(name, records, caption if records else "")
        return
    if not rows:
        return
    console = Console() if is_terminal() else Console(width=200)
    prose = [index for index, name in enumerate(header) if not index or name in text_columns]
    widths = column_widths([header, *rows], console.width - 3 * len(header) - 1, prose)
    if widths is None:
        body = _blocks(header, rows, console.width)
    else:
        body = Table()
        for index, (column, width) in enumerate(zip(header, widths, strict=True)):
            justify = "right" if index and column not in text_columns else "left"
            body.add_column(Text(column), justify=justify, overflow="fold", width=width)
        for row in rows:
            body.add_row(*map(Text, row))  # a plain string's [brackets] would be taken for a style
    console.print(Text(title, "italic"), body, *([Text(caption)] if caption else []), sep="\n")


def column_widths(
    lines: Sequence[Sequence[str]], available: int, prose: Collection[int] = ()
) -> list[int] | None:
    """The widths of columns that together fit, without a break within a word.

    Args:
        lines: the cells of each line, the header first.
        available: characters for all columns together.
        prose: the indices of columns whose cells may have any number of lines; all others may have
            two.

    Returns:
        None if the narrowest columns do not fit beside each other.
    """
    columns = list(zip(*lines, strict=True))
    widths = [max(map(_longest_line, column)) for column in columns]
    least = [
        max(
            _longest_word(cell) if index in prose or not place else _width_of_two_lines(cell)
            for place, cell in enumerate(column)
        )
        for index, column in enumerate(columns)
    ]
    if sum(least) > available:
        return None
    while sum(widths) > available:  # the widest column that can be narrower becomes so
        widest = max(
            (index for index in range(len(widths)) if widths[index] > least[index]),
            key=lambda index: widths[index],
        )
        widths[widest] -= 1
    return widths


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


def _longest_line(text: str) -> int:
    return max(map(cell_len, text.splitlines()), default=0)


def _width_of_two_lines(text: str) -> int:
    """The width at which a text, broken between words, has two lines."""
    words = text.split()
    halves = ((" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words) + 1))
    return min((max(map(cell_len, pair)) for pair in halves), default=0)


def _blocks(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """A block for each row: its first cell, and below it a line for every other column.

    A row without a first cell has that of the row above.
    """
    names = [", ".join(column.splitlines()) for column in header[1:]]
    longest = max(map(_longest_line, (cell for row in rows for cell in row[1:])), default=0)
    room = max(width - longest - 4, width // 2 - 2)  # for names, in front of the values
    body, title = Table.grid(padding=(0, 2, 0, 0)), ""
    body.add_column(overflow="fold", max_width=room)
    body.add_column(overflow="fold")
    for first, *rest in rows:
        title = first or title
        body.add_row(Text(title, "bold"))
        for name, cell in zip(names, rest, strict=True):
            body.add_row(Padding(Text(name), (0, 0, 0, 2)), Text(cell))
    return body


def print_place(sentence: str, place: Path) -> None:
    """Prints a sentence about the folder or file that a command wrote."""
    if (document := open_document()) is not None:
        document.out = str(place.absolute())
    print(sentence)


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether a stream is a terminal, not a file or pipe.

    rich would also take a pipe for one where FORCE_COLOR is set, as in every notebook.

    Args:
        stream: None for the standard output.
    """
    return (sys.stdout if stream is None else stream).isatty()


class Advance(Protocol):
    """Advances a progress bar by `count` items; `note` is shown beside the bar."""

    def __call__(self, count: int = 1, note: str = "") -> None:
        """See the class."""
        ...


@contextlib.contextmanager
def progress(
    what: str, total: int | None = None, unit: str = "tensors", every: float = 60
) -> Iterator[Advance]:
    """Shows a progress bar on the terminal; with a known total, also the time left.

    Outside a terminal a known total is logged as a line at intervals instead.

    Args:
        what: description of the work.
        total: number of items; None if unknown.
        unit: plural noun for the items.
        every: seconds between two lines of the log.
    """
    console, start = Console(stderr=True), time.monotonic()
    live = is_terminal(sys.stderr)
    last_logged, done = start, 0
    text = functools.partial(TextColumn, markup=False)  # [brackets] in names are no markup
    columns = (
        text("{task.description}"),
        BarColumn(),
        text(f"{{task.completed}}{f' of {total}' if total else ''} {unit}"),
    )
    times = (
        TimeElapsedColumn(),
        *((text("left:"), TimeRemainingColumn()) if total else ()),
        text("{task.fields[note]}"),
    )
    with Progress(*columns, *times, console=console, transient=True, disable=not live) as bar:
        task = bar.add_task(what, total=total, note="")

        def advance(count: int = 1, note: str = "") -> None:
            nonlocal last_logged, done
            done += count
            bar.update(task, advance=count, note=note)
            now = time.monotonic()
            if total and not live and now - last_logged > every:
                last_logged = now
                left = (now - start) / max(done, 1) * (total - done) / 60
                log.info(
                    "%s: %d of %d %s%s, %.0f min left",
                    what,
                    done,
                    total,
                    unit,
                    note and f", {note}",
                    left,
                )

        yield advance


def track(items: Iterable[Item], what: str, total: int, unit: str) -> Iterator[Item]:
    """Yields the items under a progress bar with their rate.

    Args:
        total: number of items.
        unit: plural noun for the items.
    """
    start = time.monotonic()
    with progress(what, total, unit) as advance:
        for count, item in enumerate(items, 1):
            yield item
            advance(note=f"{count / max(time.monotonic() - start, 1e-9):,.0f} {unit}/s")
