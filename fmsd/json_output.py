"""The document of `--json`: what a command prints as tables, for programs.

While a document is open, `fmsd.console` adds the rows of its tables to it instead of printing them,
and everything that is written to stdout, by other libraries and processes, too, goes to stderr.
"""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from fmsd.errors import InputError
from fmsd.redaction import redact_message

FORMAT = 1
"""The version of the document: it grows by one where a key is renamed, removed or redefined."""


@dataclass
class Document:
    """What a command reports.

    Args:
        verb: of the command.
        exit_code: its exit code.
        tables: by name, the rows of each table, each with the same keys.
        notes: the captions of the tables.
        out: the folder or file that the command wrote; None if it printed only.
        error: what ended it, if that is an error.
        remedy: what to do about the error.
        steps: the documents of the commands that this one ran.
    """

    verb: str
    exit_code: int = 1
    tables: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    out: str | None = None
    error: str | None = None
    remedy: str | None = None
    steps: list["Document"] = field(default_factory=list)

    def add_rows(self, name: str, rows: Sequence[Mapping[str, Any]], note: str = "") -> None:
        """Adds rows to a table, and a caption unless it is there already."""
        self.tables.setdefault(name, []).extend(rows)
        if note and note not in self.notes:
            self.notes.append(note)

    def add_error(self, error: Exception | str) -> None:
        """Sets the error, unless there is one already."""
        if self.error is not None:
            return
        if isinstance(error, InputError):
            self.error, self.remedy = redact_message(error.message), redact_message(error.remedy)
        else:
            text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
            self.error = redact_message(text)

    def plain(self) -> dict[str, Any]:
        """The document as JSON has it: numbers that are not finite are null, paths are text."""
        content = {key: value for key, value in vars(self).items() if key != "steps"}
        steps = {"steps": [step.plain() for step in self.steps]} if self.steps else {}
        return _plain({"format": FORMAT, **content, **steps})


def _plain(value: Any) -> Any:
    """A value with all that JSON lacks replaced."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


_open_document: ContextVar[Document | None] = ContextVar("document", default=None)


def open_document() -> Document | None:
    """The document of the command that runs; None without --json."""
    return _open_document.get()


def print_error(error: InputError | str) -> None:
    """Prints what ended a command to stderr."""
    if (document := open_document()) is not None:
        document.add_error(error)
    print(redact_message(f"fmsd: {error}"), file=sys.stderr)


def code_of_exit(end: SystemExit) -> int:
    """The exit code of a command that a SystemExit ends; unless it is 0, the document says so."""
    code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    if isinstance(end.code, str):
        print_error(end.code)
    elif code and (document := open_document()) is not None:
        document.add_error(f"The command ended with exit code {code}; see stderr for the reason")
    return code


@contextlib.contextmanager
def no_document() -> Iterator[None]:
    """Lets the jobs of a sweep print their tables: the document lists the jobs instead."""
    token = _open_document.set(None)
    try:
        yield
    finally:
        _open_document.reset(token)


@contextlib.contextmanager
def write_document(verb: str) -> Iterator[Document]:
    """Opens the document of a command, and writes it when the command has ended in any way.

    It is printed to stdout, or added to the document of the command that runs this one.
    """
    document, outer = Document(verb), _open_document.get()
    token = _open_document.set(document)
    try:
        with contextlib.nullcontext() if outer else stdout_to_stderr():
            yield document
    except Exception as error:  # its traceback is printed as ever
        document.add_error(error)
        raise
    finally:
        _open_document.reset(token)
        if outer is not None:
            outer.steps.append(document)
            outer.error, outer.remedy = document.error, document.remedy
        elif verb != "train" or is_first_process():  # the others run in one process
            print(json.dumps(document.plain(), indent=1, ensure_ascii=False, allow_nan=False))


def is_first_process() -> bool:
    """Whether this is the first, or the only one, of the processes of a training."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "SLURM_PROCID"))


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Sends what this process, its libraries and its child processes print to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 1)
        os.close(kept)
