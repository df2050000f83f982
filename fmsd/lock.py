"""File locks between processes: released by the system with the process that holds them."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

if os.name == "posix":
    import fcntl

log = logging.getLogger(__name__)


@contextlib.contextmanager
def open_locked(path: Path, patience: float) -> Iterator[IO[str] | None]:
    """Opens a file for reading and appending under an exclusive lock; None if it is locked already.

    The file and its folder are created if they do not exist.

    Args:
        patience: seconds to wait for the lock: loader processes outlive a killed training by some.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Errors are replaced as it may be a foreign file in any encoding.
        with path.open("a+", encoding="utf-8", errors="replace") as file:
            if not try_lock(file, patience):
                yield None
                return
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                try:
                    yield file
                finally:
                    unlock(file)
                return
            unlock(file)  # the previous holder has removed it meanwhile


def try_lock(file: IO[str], patience: float) -> bool:
    """Locks a file until it is closed; returns whether the lock was acquired.

    Without lock support (Windows, some network file systems), assumes no concurrent process.

    Args:
        patience: seconds to wait for another process to release it.
    """
    if os.name != "posix":
        return True
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        except OSError as error:
            log.debug("No lock on %s: %s", file.name, error)
            return True
        else:
            return True


def unlock(file: IO[str]) -> None:
    """Releases the lock, including the copies in forked processes, which closing does not."""
    if os.name == "posix":
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_UN)
