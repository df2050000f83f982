"""Tables and progress on the terminal."""

import contextlib
import functools
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.console import Console
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

    A file or pipe gets the table in its full width. Nothing is printed if there are no rows. With
    `--json` the records go into the document, and nothing is printed.

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
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table()
    for index, column in enumerate(header):
        table.add_column(
            Text(column),
            justify="right" if index and column not in text_columns else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(Text, row))  # a plain string's [brackets] would be taken for a style
    console.print(Text(title, "italic"), table, *([Text(caption)] if caption else []), sep="\n")


def print_place(sentence: str, place: Path) -> None:
    """Prints a sentence about the folder or file that a command wrote."""
    if (document := open_document()) is not None:
        document.out = str(place.absolute())
    print(sentence)


def is_terminal() -> bool:
    """Whether the output goes to a terminal, not into a file or pipe."""
    return Console().is_terminal


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
    with Progress(
        *columns, *times, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=total, note="")

        def advance(count: int = 1, note: str = "") -> None:
            nonlocal last_logged, done
            done += count
            bar.update(task, advance=count, note=note)
            now = time.monotonic()
            if total and not console.is_terminal and now - last_logged > every:
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
