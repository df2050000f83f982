"""Tables and progress on the terminal."""

import contextlib
import functools
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

log = logging.getLogger(__name__)

Item = TypeVar("Item")


def print_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    words: Collection[str] = (),
) -> None:
    """Prints a table and a line below it; numbers stand right. Into a file or pipe it is as wide as it needs to be.

    Args:
        words: columns beside the first that hold words, which stand left.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table()
    for index, name in enumerate(header):
        table.add_column(
            Text(name), justify="right" if index and name not in words else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*map(Text, row))  # a plain string's [brackets] would be taken for a style
    console.print(Text(title, "italic"), table, *([Text(caption)] if caption else []), sep="\n")


def is_terminal() -> bool:
    """Whether what is printed goes to a terminal, not into a file or pipe."""
    return Console().is_terminal


class Advance(Protocol):
    """Tells that so many of the things that are counted are done; `note` is shown beside them."""

    def __call__(self, count: int = 1, note: str = "") -> None:
        """See the class."""
        ...


@contextlib.contextmanager
def progress(
    what: str, total: int | None = None, unit: str = "tensors", every: float = 60
) -> Iterator[Advance]:
    """Shows on the terminal how many things are done and, where their number is known, how long the rest will take.

    Into a file or pipe, where the number is known, it is a line in the log every so many seconds.
    """
    console, began = Console(stderr=True), time.monotonic()
    told, done = began, 0
    text = functools.partial(TextColumn, markup=False)  # [brackets] in names are no style
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
            nonlocal told, done
            done += count
            bar.update(task, advance=count, note=note)
            now = time.monotonic()
            if total and not console.is_terminal and now - told > every:
                told = now
                left = (now - began) / max(done, 1) * (total - done) / 60
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
    """The items, while the terminal shows how many of them are done, and how fast."""
    began = time.monotonic()
    with progress(what, total, unit) as advance:
        for place, item in enumerate(items, 1):
            yield item
            advance(note=f"{place / max(time.monotonic() - began, 1e-9):,.0f} {unit}/s")
