"""Tables on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """Prints a table and a line below it; numbers stand right. Into a file or pipe it is as wide as it needs to be."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if caption:
        console.print(caption, highlight=False)
