"""The standard outputs of a command: what they cannot show, and readers that go away."""

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fmsd.errors import InputError
from fmsd.json_output import print_error

BROKEN_PIPE = 128 + 13
"""Exit code if the reader of the output has gone: that of other programs, which SIGPIPE ends."""

SHOWN = "fmsd.shown"
"""Name of the error handler `shown`."""


def shown(error: UnicodeError) -> tuple[str, int]:
    r"""What is printed for characters that an encoding lacks: a question mark for each.

    The bytes of a file name that is not UTF-8 are printed as \xNN, so that it can be told apart.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    codes = map(ord, error.object[error.start : error.end])
    marks = (f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else "?" for code in codes)
    return "".join(marks), error.end


codecs.register_error(SHOWN, shown)


class TolerantFile(io.FileIO):
    """An open file that drops what is written to it after its first error.

    A training of days does not end because nobody reads what it prints.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int | None:
        """Writes, or drops."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # for libraries and processes that write there, too
            os.close(null)
            return memoryview(data).nbytes


@dataclass
class Streams:
    """The standard outputs of a command, as far as they are files."""

    files: dict[str, TolerantFile] = field(default_factory=dict)

    def end(self, code: int) -> int:
        """Says what could not be printed; returns the exit code of a command that had `code`."""
        errors = {name: file.error for name, file in self.files.items() if file.error is not None}
        if any(error.errno == errno.EPIPE for error in errors.values()):
            return code or BROKEN_PIPE
        if "stdout" not in errors:
            return code
        message = f"The output cannot be written ({errors['stdout'].strerror})"
        print_error(InputError(message, "make room, or send it to another place"))
        return code or 2


@contextlib.contextmanager
def tolerant_streams() -> Iterator[Streams]:
    """Makes the standard outputs take all that is written to them, until the block ends.

    A character that the terminal's encoding lacks becomes a question mark. After an error, as of
    a reader that has gone or of a full disk, the rest is dropped.
    """
    found, kept = Streams(), {name: getattr(sys, name) for name in ("stdout", "stderr")}
    for name, stream in kept.items():
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors=SHOWN)
        buffered = isinstance(stream.buffer, io.BufferedWriter)  # not with PYTHONUNBUFFERED
        raw = stream.buffer.raw if buffered else stream.buffer
        if not isinstance(raw, io.FileIO) or isinstance(raw, TolerantFile):
            continue
        stream.flush()
        found.files[name] = file = TolerantFile(raw.fileno(), "w", closefd=False)
        text = io.TextIOWrapper(
            io.BufferedWriter(file) if buffered else file,
            encoding=stream.encoding,
            errors=SHOWN,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, text)
    try:
        yield found
    finally:
        for name in found.files:
            getattr(sys, name).flush()
            setattr(sys, name, kept[name])
