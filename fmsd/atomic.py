"""Writing files that exist whole or not at all."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from fmsd.errors import InputError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk, a quota or a limit of the file size that is used up."""

BROKEN = (errno.EIO, errno.ESTALE, errno.ENOTCONN)
"""Errors of a disk, or of the network that it is mounted over."""

WRITE_ERRORS = (*NO_ROOM, *BROKEN, errno.EROFS)
"""Errors of writing to an open file: the system reports them without its name."""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; it replaces `path` when the block succeeds.

    When the block fails, the partial file is removed and `path` stays as it was. The file gets the
    permissions of any new file in its folder, also from writers that make files which only their
    owner can read.

    Raises:
        OSError: the file cannot be written; it names `path`, also where the writer raised an error
            of its own about that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # the whole name would not leave room for the rest
    partial = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex}.partial")
    try:
        mode = _mode_of_new_file(partial)
        yield partial
        with contextlib.suppress(OSError):  # some mounts have no modes
            partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        if error.filename == str(partial) or (
            error.filename is None and error.errno in WRITE_ERRORS
        ):
            error.filename = str(path)
        raise
    except InputError:
        raise
    except Exception as error:  # torch, safetensors and polars raise their own on a full disk
        if number := refused_write(partial):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # the folder cannot be written at all
            partial.unlink(missing_ok=True)


def refused_write(path: Path) -> int | None:
    """The number of the system's error when a megabyte is added to a file; None without error.

    The file is made if it is not there.
    """
    try:
        with path.open("ab") as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())  # over a network the error comes no earlier
    except OSError as error:
        return error.errno
    return None


def _mode_of_new_file(path: Path) -> int:
    """The permission bits that the system gives to a new file at `path`, which must not exist."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)
        path.unlink()
