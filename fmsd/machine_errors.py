"""Translates errors that the machine causes: disks, memory, open files, processes."""

import errno
import re
import sys
import tempfile
import traceback
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from fmsd.atomic import BROKEN, NO_ROOM, refused_write
from fmsd.cache import cache_folder
from fmsd.errors import InputError, error_chain

SHARED_MEMORY = Path("/dev/shm")

SHARED_MEMORY_SIGNS = (
    r"killed by signal: Bus error",
    r"unable to [^<]* </torch_",
    r"torch_shm_manager",
)
"""Texts of torch's errors about shared memory: RuntimeErrors without a number and a file."""

KILLED = (
    r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:is killed by signal: Killed|exited unexpectedly)"
)
"""Text of torch's error about a loader process that was killed: a RuntimeError like any other."""


NO_MEMORY = (
    r"(?i)out of memory|can(?:'t|not) allocate memory|unable to allocate|bad_alloc"
    r"|failed to map segment"
)
"""Texts of the errors of torch, on every device, of numpy, and of loading a library."""


LOCALE_REMEDY = "set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
"""What to do about a locale whose encoding lacks the characters of a file's name."""


REMEDIES = {
    **dict.fromkeys(NO_ROOM, "make room, or "),
    errno.EFBIG: "raise the limit with `ulimit -f unlimited`, or ",
    **dict.fromkeys(BROKEN, "see to its disk or mount, or "),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "see to its permissions, or "),
    errno.EROFS: "",
    errno.ENAMETOOLONG: "shorten its name, or ",
    errno.ELOOP: "remove the link that leads back to itself, or ",
}
"""What to do about an error of a file besides choosing another place."""


def machine_error(error: BaseException, outputs: Sequence[Path] = ()) -> InputError | None:
    """The input error for an error that the machine causes; None for any other error.

    Args:
        outputs: files and folders that the command writes. One of them is named where a full disk
            is all that an error says.
    """
    for cause in error_chain(error):
        if isinstance(cause, InputError):
            return None
        refusal = (
            _lost_process(cause)
            or shared_memory_error(cause)
            or (
                _os_refusal(cause, outputs)
                if isinstance(cause, OSError)
                else memory_error(cause) or _locale_refusal(cause) or _text_refusal(str(cause))
            )
        )
        if refusal:
            return refusal
    return None


def shared_memory_error(error: BaseException) -> InputError | None:
    """The input error for an error about /dev/shm, by torch or a semaphore; None for others."""
    if not isinstance(error, OSError):
        concerned = any(re.search(sign, str(error)) for sign in SHARED_MEMORY_SIGNS)
    elif error.filename is None:  # a semaphore's error names no file
        concerned = _passed_through(error, "synchronize.py") and error.errno != errno.ENOMEM
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


def _lost_process(error: BaseException) -> InputError | None:
    """The input error for a loader process that is gone while its images are fetched.

    torch notices one that was killed only if its parent has been informed by then. Before, what
    fails is the connection through which its shared memory is handed over.
    """
    gone = isinstance(error, ConnectionError | EOFError | FileNotFoundError)
    return _killed() if gone and _passed_through(error, "resource_sharer.py") else None


def _killed() -> InputError:
    return InputError(
        "A process that loads images was killed by the system, mostly because memory ran out",
        "give fewer data.workers, or more memory",
    )


def _passed_through(error: BaseException, file: str) -> bool:
    """Whether an error was raised below a function in a file of Python's multiprocessing."""
    frames = traceback.extract_tb(error.__traceback__)
    return ("multiprocessing", file) in {Path(frame.filename).parts[-2:] for frame in frames}


def _os_refusal(error: OSError, outputs: Sequence[Path]) -> InputError | None:
    """The input error for an error number of the system; None for any other number."""
    file = Path(error.filename).absolute() if isinstance(error.filename, str) else None
    if refusal := _process_refusal(error, file):
        return refusal
    if file is None and error.errno in NO_ROOM:
        file = full_place(outputs)
    if file is None and error.errno in NO_ROOM:
        places = ", ".join(map(str, _written_places(outputs)))
        return InputError(
            f"A file cannot be written ({error.strerror})", f"make room in one of {places}"
        )
    if file is None or error.errno not in REMEDIES:
        return None
    written = error.errno in (*NO_ROOM, errno.EROFS)
    return InputError(
        f"{file} cannot be {'written' if written else 'opened or written'} ({error.strerror})",
        REMEDIES[error.errno] + _other_place(file),
    )


def _process_refusal(error: OSError, file: Path | None) -> InputError | None:
    """The input error for a limit of this process or its user; None for any other error."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return InputError(
            f"This process may not open more files{_limit('NOFILE', 'n')}",
            "raise the limit with `ulimit -n 4096`, or give fewer data.workers",
        )
    if error.errno == errno.EAGAIN and file is None:
        return InputError(
            f"No further process can be started{_limit('NPROC', 'u')}",
            "raise the limit with `ulimit -u`, or set data.workers=0",
        )
    if "No usable temporary directory" in str(error):
        return InputError(
            "There is no folder for temporary files that can be written",
            "set TMPDIR to one, or make room in /tmp",
        )
    return memory_error(error) if error.errno == errno.ENOMEM else None


def full_place(outputs: Sequence[Path]) -> Path | None:
    """The first place among those that a command writes to whose disk takes no more."""
    for place in _written_places(outputs):
        folder = next(folder for folder in (place, *place.parents) if folder.is_dir())
        attempt = folder / f".{uuid.uuid4().hex}.partial"
        try:
            if refused_write(attempt) in NO_ROOM:
                return place
        finally:
            attempt.unlink(missing_ok=True)
    return None


def _written_places(outputs: Sequence[Path]) -> Iterator[Path]:
    """Outputs, the folder of temporary files and the cache, as absolute paths."""
    yield from (path.absolute() for path in outputs)
    try:
        yield Path(tempfile.gettempdir()).absolute()
        yield cache_folder().absolute()
    except (OSError, InputError):
        return


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


def memory_error(error: BaseException) -> InputError | None:
    """The input error for memory that does not suffice; None for any other error."""
    number = error.errno if isinstance(error, OSError) else None
    if (
        not isinstance(error, MemoryError)
        and number != errno.ENOMEM
        and not re.search(NO_MEMORY, str(error))
    ):
        return None
    return InputError(
        f"The memory does not suffice{_limit('AS', 'v')}",
        "give a smaller data.batch_size (with learner.accumulate for the same step) or fewer "
        "data.workers, or more memory",
    )


def _locale_refusal(error: BaseException) -> InputError | None:
    """The input error for a file's name that the locale's encoding lacks; None for others."""
    if not isinstance(error, UnicodeEncodeError) or error.encoding in ("utf-8", "idna"):
        return None
    if error.encoding != sys.getfilesystemencoding():
        return None
    return InputError(
        f"{error.object[:200]!r} is not {error.encoding.upper()}, the encoding of this locale",
        LOCALE_REMEDY,
    )


def _text_refusal(text: str) -> InputError | None:
    """The input error for the text of an error without a number; None for any other text."""
    if re.search(KILLED, text):
        return _killed()
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
