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


HEADER = ["", *(f"{name}\n12 real, 24 fake videos" for name in ("celeb", "deeperforensics", "dfd"))]
ROWS = [[name, *["0.992 ± 0.002 [0.983, 0.999]"] * 3] for name in ("fmsd, no mask", "lora")]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_lines_are_broken_between_words(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    print_table("AUC per video", HEADER, ROWS, name="x", records=[])
    printed = capsys.readouterr().out
    assert all(len(line) <= width for line in printed.splitlines())
    words = set(printed.replace(",", "").split())
    wanted = " ".join(cell for line in (HEADER, *ROWS) for cell in line)
    assert set(wanted.replace(",", "").split()) <= words
    assert ("┃" in printed) == (width >= 80)  # below, a block for each row


def test_columns_are_as_wide_as_they_may_be() -> None:
    lines = [["", "a long header of words"], ["name", "1 2"]]
    assert console.column_widths(lines, 100, [0]) == [4, 22]
    assert console.column_widths(lines, 16, [0]) == [4, 12]
    assert console.column_widths(lines, 4 + len("header"), [0]) == [4, 6]
    assert console.column_widths(lines, 4 + len("header") - 1, [0]) is None
