"""Files that are there whole or not at all."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

os.umask(UMASK := os.umask(0))


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to; it becomes `path` in one step when the block ends, and is removed when the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        with contextlib.suppress(OSError):  # some mounts have no modes
            partial.chmod(0o666 & ~UMASK)  # some writers make files that only their owner can read
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
