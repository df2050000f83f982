"""Translates errors that the machine causes: folders, shared memory, open files, processes."""

import errno
import re
import traceback
from pathlib import Path

from fmsd.cache import cache_folder
from fmsd.errors import InputError, error_chain

SHARED_MEMORY = Path("/dev/shm")

SHARED_MEMORY_SIGNS = (
    r"killed by signal: Bus error",
    r"unable to \w+ (?:\d+ bytes )?(?:from |to )?(?:shared memory object|file) </torch_",
    r"torch_shm_manager",
)
"""Texts of torch's errors about shared memory: RuntimeErrors without a number and a file."""

KILLED = (
    r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:is killed by signal: Killed|exited unexpectedly)"
)
"""Text of torch's error about a loader process that was killed: a RuntimeError like any other."""


def machine_error(error: BaseException) -> InputError | None:
    """The input error for an error that the machine causes; None for any other error."""
    for cause in error_chain(error):
        if isinstance(cause, InputError):
            return None
        refusal = shared_memory_error(cause) or (
            _os_refusal(cause) if isinstance(cause, OSError) else _text_refusal(str(cause))
        )
        if refusal:
            return refusal
    return None


def shared_memory_error(error: BaseException) -> InputError | None:
    """The input error for an error about /dev/shm, by torch or a semaphore; None for others."""
    if not isinstance(error, OSError):
        concerned = any(re.search(sign, str(error)) for sign in SHARED_MEMORY_SIGNS)
    elif error.filename is None:  # a semaphore's error names no file
        frames = traceback.extract_tb(error.__traceback__)
        files = {Path(frame.filename).parts[-2:] for frame in frames}
        concerned = ("multiprocessing", "synchronize.py") in files
    else:
        concerned = isinstance(error.filename, str) and Path(error.filename).is_relative_to(
            SHARED_MEMORY
        )
    if not concerned:
        return None
    return InputError(
        f"The shared memory {SHARED_MEMORY}, through which processes exchange data, is too small "
        "or cannot be written",
        "give the container more (docker run --shm-size=8g), or load images in this process with "
        "data.workers=0 (workers=0 of doctor)",
    )


def _os_refusal(error: OSError) -> InputError | None:
    """The input error for an error number of the system; None for any other number."""
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
    action = "opened or written" if error.errno in (errno.EACCES, errno.EPERM) else "written"
    return InputError(f"{file} cannot be {action} ({error.strerror})", remedy + _other_place(file))


def _other_place(file: Path) -> str:
    """The remedy that sets another place for a file."""
    try:
        if file.is_relative_to(cache_folder().absolute()):
            return "set FMSD_CACHE to a folder that can be written"
    except InputError:
        pass
    return (
        "choose a folder that can be written with hydra.run.dir=PATH (hydra.sweep.dir=PATH in "
        "a sweep), or out=PATH where the verb takes it"
    )


def _text_refusal(text: str) -> InputError | None:
    """The input error for the text of an error without a number; None for any other text."""
    if re.search(KILLED, text):
        return InputError(
            "A process that loads images was killed by the system, mostly because memory ran out",
            "give fewer data.workers, or more memory",
        )
    if "can't start new thread" in text:  # Python's own text, which has no number
        return InputError(
            f"No further thread can be started{_limit('NPROC', 'u')}",
            "raise the limit with `ulimit -u`, or set data.workers=0",
        )
    return None


def _limit(name: str, option: str) -> str:
    """A limit of this process in brackets; empty if the system does not report it."""
    try:
        import resource  # noqa: PLC0415  there is none on Windows

        soft = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0]
    except (ImportError, AttributeError, OSError):
        return ""
    return f" (`ulimit -{option}` is {'unlimited' if soft == resource.RLIM_INFINITY else soft})"
