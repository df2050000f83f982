"""Reads JSON records of this package, which may be damaged or come from a stranger.

A kind of file is described by a `TypedDict` beside the code that reads it. Other keys than those
that it names are allowed: other versions write them.
"""

import functools
import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from fmsd.errors import InputError, reason
from fmsd.magic_numbers import JSON, recognise

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed that all generators of random numbers take."""

Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number of things."""

Number = Annotated[float, Field(allow_inf_nan=False)]
"""A finite number."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""A SHA-256."""

HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
"""The halves by which JSON writes some characters; alone, they are text that cannot be written."""


def _plain(value: object) -> object:
    if isinstance(value, list | dict):
        raise ValueError("should be a text, a number, true, false or null")
    return value


PlainValue = Annotated[Any, AfterValidator(_plain)]
"""A text, a number, true, false or null."""


def read_record(path: Path, shape: Any, remedy: str) -> Any:
    """The content of a JSON file.

    Args:
        shape: what it must hold, a type such as a `TypedDict`, see `check_record`.
        remedy: what to do about a file that does not hold it.

    Raises:
        InputError: it does not; the message names the file, the key and what is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if HALF_PAIR.search(text):
            json.dumps(content, ensure_ascii=False).encode()  # a half without its other half fails
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})", remedy) from error
    except (ValueError, RecursionError) as error:  # the latter for thousands of brackets
        fault = recognise(path)
        if fault is None or fault is JSON:
            raise InputError(f"{path} is no JSON ({reason(error)})", remedy) from error
        raise InputError(
            f"{path} cannot be read: it {fault.what}", fault.remedy_or(remedy)
        ) from error
    check_record(content, shape, path, remedy)
    return content


def check_record(content: object, shape: Any, source: str | Path, remedy: str) -> None:
    """Checks that plain data hold what they should.

    Nothing is converted: 1.0 is no whole number, and true is none either.

    Args:
        shape: the type of the data.
        source: where they are from, for the message.
        remedy: what to do about it.

    Raises:
        InputError: the first key that is missing or has a value of another kind.
    """
    try:
        _checker(shape).validate_python(content, strict=True)
    except ValidationError as error:
        raise InputError(f"{source} is damaged: {_first_fault(error)}", remedy) from error
    except InputError as error:  # by a check of a name
        raise InputError(f"{source} is damaged: {error.message}", remedy) from error


@functools.cache
def _checker(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _first_fault(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = repr(".".join(str(part) for part in first["loc"]))
    key = key if len(key) <= 100 else f"{key[:97]}..."
    if first["type"] == "missing":
        return f"it lacks {key}"
    subject = key if first["loc"] else "it"
    return f"{subject} {first['msg'].removeprefix('Input ').removeprefix('Value error, ')}"
