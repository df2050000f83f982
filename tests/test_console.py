"""What the terminal shows: names as they are, whatever brackets they have."""

import io

import pytest
from rich.console import Console

from fmsd import console
from fmsd.console import print_table, progress

HOSTILE = ("[bold]x", "[/]", "[red]", "a[1]", "%s %d", "{task.x}", ":smile:")
"""Names that rich would take for styles, some of them broken."""


def test_a_table_shows_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        "title [/]",
        ["", *HOSTILE],
        [[name, *HOSTILE] for name in HOSTILE],
        "caption [bold]",
        text_columns=HOSTILE,
        name="hostile",
        records=[],
    )
    printed = capsys.readouterr().out
    assert all(
        printed.count(name) >= len(HOSTILE) + 2 for name in HOSTILE
    )  # in the header, in every row, and as the name of one
    assert "title [/]" in printed
    assert "caption [bold]" in printed


def test_progress_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(
        console, "Console", lambda stderr: Console(file=written, force_terminal=True, width=200)
    )
    with progress("Reading [/]", 2, "files") as advance:
        advance(note="[bold]x of [/]")
    assert "Reading [/]" in written.getvalue()
    assert "[bold]x of [/]" in written.getvalue()
