"""What the terminal shows: names as they are, whatever brackets they have."""

import io
import sys

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


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Terminal()
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setattr(
        console, "Console", lambda stderr: Console(file=written, force_terminal=True, width=200)
    )
    with progress("Reading [/]", 2, "files") as advance:
        advance(note="[bold]x of [/]")
    assert "Reading [/]" in written.getvalue()
    assert "[bold]x of [/]" in written.getvalue()


def test_a_pipe_is_no_terminal_although_colours_are_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")  # no escapes in what is compared
    with progress("Reading", 2, "files") as advance:
        advance()
    assert capsys.readouterr().err == ""
    print_table("t", ["", "x" * 150], [["a", "b"]], name="wide", records=[])
    assert "x" * 150 in capsys.readouterr().out
