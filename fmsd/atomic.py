"""Writing files that exist whole or not at all."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; it replaces `path` when the block succeeds.

    When the block fails, the partial file is removed and `path` stays as it was. The file gets the
    permissions of any new file in its folder, also from writers that make files which only their
    owner can read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    mode = _mode_of_new_file(partial)
    try:
        yield partial
        with contextlib.suppress(OSError):  # some mounts have no modes
            partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _mode_of_new_file(path: Path) -> int:
    """The permission bits that the system gives to a new file at `path`, which must not exist."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)
        path.unlink()
