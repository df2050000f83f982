"""Runs one command in this process, and judges how it ended."""

import contextlib
import io
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.global_hydra import GlobalHydra

from fmsd.cli.main import main

SECONDS = 60.0
"""The longest time of a command, of the processor; a tenth of what it may take in all."""

FAILING = ("doctor", "extract", "predict", "roots")
"""The verbs with the exit code 1 for failures that they report."""


class Stuck(BaseException):
    """A command takes too long; no `except Exception` of the command catches it."""


class Outcome(NamedTuple):
    """How a command ended: its exit code, output and error output."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def time_limit(seconds: float = SECONDS) -> Iterator[None]:
    """Ends a block after some time of the processor, or ten times as long.

    Raises:
        AssertionError: it took longer.
    """

    def stop(*_: object) -> None:
        raise Stuck

    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, stop) for number in timers}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 10 * seconds)
    try:
        yield
    except Stuck as error:
        raise AssertionError(f"it takes more than {seconds:g} s") from error
    finally:
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


@contextlib.contextmanager
def own_log(stream: Any) -> Iterator[None]:
    """Sends what is logged to a stream, as in a process whose error output it is."""
    root = logging.getLogger()
    only: list[logging.Handler] = [logging.StreamHandler(stream)]
    handlers, root.handlers = root.handlers, only
    try:
        yield
    finally:
        root.handlers = handlers


def run(words: Sequence[str], folder: Path) -> Outcome:
    """Runs a command in a folder, as in a process of its own."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    around, argv, place = dict(os.environ), sys.argv, Path.cwd()
    os.chdir(folder)
    try:
        with (
            time_limit(),
            contextlib.redirect_stdout(streams[0]),
            contextlib.redirect_stderr(streams[1]),
            own_log(streams[1]),
        ):
            code = main(list(words))
    finally:
        os.chdir(place)
        sys.argv = argv
        for name in os.environ.keys() - around.keys():
            del os.environ[name]
        os.environ.update(around)
        GlobalHydra.instance().clear()
    out, err = (_text(stream) for stream in streams)
    return Outcome(code, out, err)


def _text(stream: Any) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode("utf-8", "replace")


def judge(words: Sequence[str], outcome: Outcome) -> None:
    """Checks the exit code of a command, and that a refusal is a sentence and nothing else.

    No case has a reason for the other documented codes: 75 (no other process is at work), 128 + n
    (no signal comes) and 141 (the output is read).
    """
    code, _, err = outcome
    shown = f"{shlex.join(map(str, words))}\nended with {code}:\n{err}"
    many = words[0] == "reproduce" or not {"-m", "--multirun"}.isdisjoint(words)
    failing = many or words[0] in FAILING
    assert code in ((0, 1, 2) if failing else (0, 2)), shown
    assert "Traceback (most recent call last)" not in err, shown
    if code == 2 and not many:
        _, *sentences = re.split("^fmsd: ", err, flags=re.MULTILINE)
        assert len(sentences) == 1, shown
        assert sentences[0].rstrip().endswith("."), shown
        assert not re.search(r"\b[A-Z]\w+(Error|Exception)\b", sentences[0]), shown


Snapshot = dict[Path, tuple[int, int] | None]
"""By path, the size and time of a file, or None for a folder."""


def snapshot(root: Path) -> Snapshot:
    """The files and folders below a folder, without those of caches."""
    found: Snapshot = {}
    for folder, names, files in os.walk(root):
        if "cache" in names:
            names.remove("cache")
        for name in names:
            found[Path(folder, name)] = None
        for name in files:
            state = os.lstat(Path(folder, name))
            found[Path(folder, name)] = (state.st_size, state.st_mtime_ns)
    return found


def check_writes(
    before: Snapshot,
    after: Snapshot,
    may_create: Callable[[Path], bool],
    may_change: Callable[[Path], bool],
) -> None:
    """Checks that only files were created and changed that a command may create and change."""
    lost = [path for path, state in before.items() if after.get(path, "none") != state]
    if changed := [path for path in lost if not may_change(path)]:
        raise AssertionError(f"changed or removed: {', '.join(map(str, changed[:5]))}")
    if created := [path for path in after.keys() - before.keys() if not may_create(path)]:
        raise AssertionError(f"written elsewhere: {', '.join(map(str, sorted(created)[:5]))}")
