"""Signals that end a command: Ctrl-C, `kill`, a closed terminal, the time limit of a queue.

Before a verb begins, the first signal prints its sentence and ends the process at once: nothing has
been written, and an error that is raised inside of an import may be lost there. From then on it
raises `Interrupted`, so that partial files are removed and checkpoints stay. A second one raises it
once more, out of whatever the end waits for; a third one ends the process at once. A training lets
the signals of queues wait for the end of its step, at which it can save a checkpoint.

This module is imported before all others, so it imports little.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")

SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
"""Signals that end a command. SLURM and submitit send the last two before a job's time is over."""

REMEDY = "run the same command again"
"""The remedy of a command that is simply repeated."""

SAME_SIGNAL = 1.0
"""Seconds in which further signals count as the first one.

`timeout`, `srun` and launchers send it to a process and to its group, which it is in, too.
"""

WAITING = tuple(number for number in SIGNALS if number.name in ("SIGTERM", "SIGUSR1", "SIGUSR2"))
"""Signals that wait for the end of a training step: queues send them before they kill."""

LONGEST_WAIT = 10
"""Seconds that they wait at most."""

GRACE = 5
"""Seconds after which SIGTERM ends a worker process, which waits for its parent to end it."""

LAUNCHER = "FMSD_LAUNCHER"
"""The environment variable with the id of the process that started this one as one of several."""


class Interrupted(KeyboardInterrupt):
    """A signal ends the command.

    Args:
        number: the signal's.
        remedy: how to go on, as that of `fmsd.errors.InputError`.
    """

    def __init__(self, number: int = signal.SIGINT, remedy: str = REMEDY) -> None:
        super().__init__(number, remedy)
        self.number, self.remedy = number, remedy

    def __str__(self) -> str:
        return f"{self.cause}; {self.remedy}."

    @property
    def cause(self) -> str:
        """What ended the command."""
        return f"interrupted by {signal.Signals(self.number).name}"

    @property
    def code(self) -> int:
        """The exit code, as of a shell."""
        return 128 + self.number


class _Handler:
    """The handler of all signals, and what it has received.

    Attributes:
        process: the id of the process that it works in; None before it is installed.
        numbers: the signals that it handles.
        received: the first signal; None before.
        starting: whether nothing has begun that would have to be undone.
        holding: whether the first of `WAITING` waits for `release`.
        silent: whether the process that started this one prints the sentence.
        code: the exit code once all is done; None before.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.process: int | None = None
        self.numbers: list[signal.Signals] = []
        self.received: int | None = None
        self.starting = self.holding = self.silent = False
        self.code: int | None = None
        self._count, self._last = 0, 0.0
        self._stop_waiting: Callable[[], None] = lambda: None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            return  # a fork that is no worker process yet
        now = time.monotonic()
        if self._count and now - self._last < SAME_SIGNAL:
            return
        self._count, self._last = self._count + 1, now
        self.received = self.received or number
        if self.code is not None:
            os._exit(self.code)
        if self.starting or self._count > 2:
            ending = Interrupted(self.received)
            if not self.silent:
                os.write(2, f"fmsd: {ending}\n".encode())
            os._exit(ending.code)
        if self.holding and self._count == 1 and number in WAITING:
            self._again_in(LONGEST_WAIT)
        else:
            raise Interrupted(self.received)

    def lost(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Raises an interruption anew that came in a destructor; prints any other error.

        After a signal nothing is printed: it may have left an object half made, whose destructor
        then fails.
        """
        if isinstance(unraisable.exc_value, Interrupted):
            self._again_in(0.01)
        elif self.received is None:
            sys.__unraisablehook__(unraisable)

    def _again_in(self, seconds: float) -> None:
        """Raises the first signal anew."""
        import threading  # noqa: PLC0415  slow to import

        def again() -> None:
            self._count, self.holding = 0, False
            if self.received is not None:
                os.kill(os.getpid(), self.received)

        timer = threading.Timer(seconds, again)
        timer.daemon = True
        timer.start()
        self._stop_waiting = timer.cancel

    def release(self) -> None:
        """Lets signals wait no longer."""
        self.holding = False
        self._stop_waiting()


_handler = _Handler()


def handle_signals() -> None:
    """Installs the handler; a signal that is ignored, as by nohup, or handled already, stays so."""
    _handler.process = os.getpid()
    _handler.starting = True
    _handler.numbers = [
        number
        for number in SIGNALS
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    ]
    keep_handling()
    sys.unraisablehook = _handler.lost
    if (parent := os.environ.pop(LAUNCHER, None)) is not None:
        _handler.silent = True
        die_with_parent(int(parent))


def ignore_signals() -> None:
    """Ignores signals in the interpreter's last moments, in which it removes their handlers."""
    if handled():
        for number in _handler.numbers:
            signal.signal(number, signal.SIG_IGN)


def keep_handling() -> None:
    """Installs the handler again, after a library has put its own in its place."""
    if handled():
        for number in _handler.numbers:
            signal.signal(number, _handler)


def begin() -> None:
    """Makes signals raise `Interrupted` from here on: something begins that has to be undone."""
    _handler.starting = False


def finish(code: int) -> int:
    """Ends the process if it was interrupted; otherwise its exit code stands, whatever comes.

    The interpreter's own end would wait for threads and processes that were left as they were.

    Returns:
        The exit code.
    """
    _handler.code = code
    if _handler.received is None:
        return code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            child.kill()
    os._exit(code)


def hold() -> None:
    """Lets a signal of a queue wait for `release`."""
    _handler.holding = True


def release() -> None:
    """Lets signals wait no longer.

    Raises:
        Interrupted: one has come.
    """
    _handler.release()
    check()


def received() -> bool:
    """Whether a signal has come."""
    return _handler.received is not None


def handled() -> bool:
    """Whether this process handles signals by this module."""
    return _handler.process == os.getpid()


def silent() -> bool:
    """Whether the process that started this one prints what ends it."""
    return _handler.silent


def check() -> None:
    """Raises what a library may have swallowed.

    Raises:
        Interrupted: a signal has come.
    """
    if _handler.received is not None:
        raise Interrupted(_handler.received)


def interruption(error: BaseException, remedy: str = "") -> Interrupted:
    """What ended the command, where a `KeyboardInterrupt` or an error after a signal did.

    Args:
        remedy: how to go on; empty for that of the error.
    """
    known = error if isinstance(error, Interrupted) else None
    number = _handler.received or (known.number if known else signal.SIGINT)
    return Interrupted(number, remedy or (known.remedy if known else REMEDY))


@contextlib.contextmanager
def errors_as_interruption() -> Iterator[None]:
    """Turns every error after a signal into `Interrupted`: the signal is its cause.

    A group of processes gets a signal as one, and each sees how the others end.

    Raises:
        Interrupted: see above.
    """
    try:
        yield
    except BaseException as error:
        if _handler.received is None or isinstance(error, Interrupted):
            raise
        raise interruption(error) from error


@contextlib.contextmanager
def signals_handled() -> Iterator[None]:
    """Handles signals in a block, where the process does not do so by itself.

    Only the main thread can; elsewhere nothing is changed.
    """
    import threading  # noqa: PLC0415  slow to import

    if handled() or threading.current_thread() is not threading.main_thread():
        yield
        return
    hook, before = sys.unraisablehook, {number: signal.getsignal(number) for number in SIGNALS}
    handle_signals()
    begin()
    try:
        yield
    finally:
        for number in _handler.numbers:
            signal.signal(number, before[number])
        sys.unraisablehook = hook
        _handler.reset()


def leave_to_parent(parent: int) -> None:
    """Leaves signals to the parent of this worker process, and ends with it, however that ends.

    A parent that stops its workers itself does so by SIGTERM, as Python's pools do: it acts late.

    Args:
        parent: the id of the process that started this one.
    """
    die_with_parent(parent)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def die_with_parent(parent: int) -> None:
    """Ends this process with the one that started it, however that ends (Linux)."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  slow to import

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        # a server forks for its parent, whose own end ends it (the method forkserver)
        if os.getppid() != parent and not os.path.exists(f"/proc/{parent}"):  # noqa: PTH110
            os._exit(1)
