"""Finds the factory of a foreign detector, `py:MODULE:FACTORY`, and makes the detector.

The factory is code of the user's own, which the command line names: it is imported and called. The
working folder is on Python's path while this is done, and no longer.
"""

import contextlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmsd.errors import InputError, reason
from fmsd.machine_errors import memory_error
from fmsd.paths import expand_home, file_digest
from fmsd.quoting import printable

WORD = re.compile(r"py:([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")
"""`py:MODULE:FACTORY`, both dotted names of Python."""


@dataclass(frozen=True)
class MadeDetector:
    """A detector that a factory made, and where it is from.

    Args:
        call: the detector.
        name: `MODULE:FACTORY`.
        digest: SHA-256 of the module's file; None of a module without one.
        files: SHA-256 of each argument that is a file, by its name.
    """

    call: Callable[[Any], Any]
    name: str
    digest: str | None
    files: Mapping[str, str]


def make_detector(word: str, arguments: Mapping[str, Any]) -> MadeDetector:
    """Imports a module and calls its factory.

    Args:
        word: `py:MODULE:FACTORY`.
        arguments: of the factory.

    Raises:
        InputError: there is no such factory, it does not take these arguments, it fails, or what it
            returns cannot be called.
    """
    match = WORD.fullmatch(word)
    if match is None:
        raise InputError(
            f"detector={printable(word)} names no factory of a detector",
            "give detector=py:MODULE:FACTORY, for detectors/mine.py and its class Detector "
            "py:detectors.mine:Detector",
        )
    module_name, factory_name = match.groups()
    name = f"{module_name}:{factory_name}"
    files = {
        key: file_digest(expand_home(value))
        for key, value in arguments.items()
        if isinstance(value, str) and value and _is_file(expand_home(value))
    }
    with working_folder_on_path():
        module, digest = _import(module_name)
        factory = _find(module, factory_name, module_name)
        _check_arguments(factory, arguments, name)
        with user_code(f"The factory {name} fails"):
            detector = factory(**arguments)
    if not callable(detector):
        raise InputError(
            f"The factory {name} returns a {type(detector).__name__}, which cannot be called",
            "return a detector: a function, a torch module or an object with __call__",
        )
    return MadeDetector(detector, name, digest, files)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that is too long for a path, or holds a null
        return False


@contextlib.contextmanager
def working_folder_on_path() -> Iterator[None]:
    """Lets modules of the working folder be imported inside the block."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


@contextlib.contextmanager
def user_code(what: str) -> Iterator[None]:
    """Translates errors of the user's code.

    Args:
        what: what fails, as the beginning of a sentence.

    Raises:
        InputError: the code raised; the message names the error and the line of its file.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        raise memory_error(error) or InputError(
            f"{what}: {error_text(error)}{error_place(error)}", "correct its code or its arguments"
        ) from error


def error_text(error: BaseException) -> str:
    """The kind and the first line of an error, for a message."""
    text = reason(error) if isinstance(error, Exception) else str(error)
    kind = type(error).__name__
    return printable(kind if text in ("", kind) else f"{kind}: {text}")[:300].rstrip(".")


def error_place(error: BaseException) -> str:
    """The file and the line that raised an error, in brackets."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _import(name: str) -> tuple[Any, str | None]:
    """A module, and the SHA-256 of its file before it is imported, if it has one.

    Raises:
        InputError: there is no such module, or it fails.
    """
    what = f"The module {name} cannot be imported"
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:  # of a parent, which is imported
        raise InputError(f"{what} ({error_text(error)})", _module_remedy()) from error
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{what}: {error_text(error)}{error_place(error)}", "correct its code"
        ) from error
    if found is None:
        raise InputError(f"There is no module {name}", _module_remedy())
    origin = found.origin if found.has_location else None
    digest = file_digest(Path(origin)) if origin is not None and _is_file(Path(origin)) else None
    with user_code(what):
        return importlib.import_module(name), digest


def _module_remedy() -> str:
    return (
        "it is looked for in the working folder, among the installed packages and in PYTHONPATH; "
        "correct its name, or change to its folder"
    )


def _find(module: Any, name: str, module_name: str) -> Callable[..., Any]:
    """The factory in a module.

    Raises:
        InputError: there is none of this name.
    """
    factory = module
    for part in name.split("."):
        factory = getattr(factory, part, None)
    if callable(factory):
        return factory
    known = [
        key
        for key, value in vars(module).items()
        if callable(value)
        and not key.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
    ]
    raise InputError(
        f"The module {module_name} has no function or class {name}",
        f"it has {', '.join(known)}" if known else "correct its name",
    )


def _check_arguments(factory: Callable[..., Any], arguments: Mapping[str, Any], name: str) -> None:
    """Checks that a factory takes the given arguments and needs no others.

    Raises:
        InputError: it does not, or does.
    """
    try:
        signature = inspect.signature(factory)
    except (ValueError, TypeError):  # some of C have none: the call tells
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise InputError(
            f"The factory {name}{signature} does not take the arguments "
            f"{', '.join(arguments) or 'that were given, none'} ({error})",
            "give them as args.NAME=VALUE",
        ) from error
