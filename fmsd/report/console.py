"""Tables on the terminal."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """Prints a table and a line below it; numbers stand right. Into a file or pipe it is as wide as it needs to be."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table()
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # a plain string's [brackets] would be taken for a style
    console.print(Text(title, "italic"), table, *([Text(caption)] if caption else []), sep="\n")


@contextlib.contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Shows on the terminal how often the function that it gives was called, of `total` times if that is known; into a file or pipe, nothing."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} tensors"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
