"""What a machine may refuse: a folder to write to, shared memory, open files, processes. Each as one sentence."""

import errno
import io
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from fmsd.cache import cache_folder
from fmsd.errors import InputError

SHARED_MEMORY = Path("/dev/shm")

SHARED_MEMORY_SIGNS = (
    r"killed by signal: Bus error",
    r"unable to \w+ (?:\d+ bytes )?(?:from |to )?(?:shared memory object|file) </torch_",
    r"torch_shm_manager",
)
"""What torch's errors about shared memory say; they have no number and no file."""

KILLED = (
    r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:is killed by signal: Killed|exited unexpectedly)"
)
"""What torch says of a loader process that the system ended."""


def machine_error(error: BaseException) -> InputError | None:
    """The sentence for an error that the machine is the cause of; None for any other error."""
    for one in _chain(error):
        if isinstance(one, InputError):
            return None
        found = shared_memory_error(one) or (
            _of_system(one) if isinstance(one, OSError) else _of_text(str(one))
        )
        if found:
            return found
    return None


def shared_memory_error(error: BaseException) -> InputError | None:
    """The sentence for an error about /dev/shm: of torch, or of the semaphores that processes share; None for any other error."""
    under = (
        isinstance(error, OSError)
        and isinstance(error.filename, str)
        and Path(error.filename).is_relative_to(SHARED_MEMORY)
    )
    frames = {
        Path(frame.filename).parts[-2:] for frame in traceback.extract_tb(error.__traceback__)
    }
    semaphore = (
        isinstance(error, OSError)
        and error.filename is None
        and ("multiprocessing", "synchronize.py") in frames
    )
    said = not isinstance(error, OSError) and any(
        re.search(sign, str(error)) for sign in SHARED_MEMORY_SIGNS
    )
    if not (under or semaphore or said):
        return None
    return InputError(
        f"The shared memory {SHARED_MEMORY}, through which processes talk, is too small or cannot "
        "be written",
        "give the container more (docker run --shm-size=8g), or load images in this process with "
        "data.workers=0 (workers=0 of doctor)",
    )


def replace_unencodable() -> None:
    """Lets the terminal show a question mark for what its encoding lacks, instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _of_system(error: OSError) -> InputError | None:
    file = Path(error.filename).absolute() if isinstance(error.filename, str) else None
    if error.errno == errno.EMFILE:
        return InputError(
            f"This process may not open more files{_limit('NOFILE', 'n')}",
            "raise the limit with `ulimit -n 4096`, or give fewer data.workers",
        )
    if error.errno == errno.EAGAIN and file is None:
        return InputError(
            f"No further process can be started{_limit('NPROC', 'u')}",
            "raise the limit with `ulimit -u`, or set data.workers=0",
        )
    remedy = {
        errno.ENOSPC: "make room, or ",
        errno.EDQUOT: "make room, or ",
        errno.EROFS: "",
        errno.EACCES: "see to its permissions, or ",
        errno.EPERM: "see to its permissions, or ",
    }.get(error.errno or 0)
    if file is None or remedy is None:
        return None
    return InputError(
        f"{file} cannot be {'opened or ' if error.errno in (errno.EACCES, errno.EPERM) else ''}written ({error.strerror})",
        remedy + _elsewhere(file),
    )


def _elsewhere(file: Path) -> str:
    """How to write to another place than this one."""
    try:
        if file.is_relative_to(cache_folder().absolute()):
            return "set FMSD_CACHE to a folder that can be written"
    except InputError:
        pass
    return (
        "choose a folder that can be written with hydra.run.dir=PATH (hydra.sweep.dir=PATH in "
        "a sweep), or out=PATH where the verb takes it"
    )


def _of_text(text: str) -> InputError | None:
    if re.search(KILLED, text):
        return InputError(
            "A process that loads images was ended by the system, most often for want of memory",
            "give fewer data.workers, or more memory",
        )
    if "can't start new thread" in text:  # Python's own text, which has no number
        return InputError(
            f"No further thread can be started{_limit('NPROC', 'u')}",
            "raise the limit with `ulimit -u`, or set data.workers=0",
        )
    return None


def _limit(name: str, option: str) -> str:
    """A limit of this process in brackets, where the system tells it."""
    try:
        import resource  # noqa: PLC0415  there is none on Windows

        soft = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0]
    except (ImportError, AttributeError, OSError):
        return ""
    return f" (`ulimit -{option}` is {'unlimited' if soft == resource.RLIM_INFINITY else soft})"
