"""Files at addresses of other machines: s3://, gs://, hf://, http:// and all that fsspec reads.

Credentials come from where each service's library finds them (environment variables, its own
files), never from the address.
"""

import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import fsspec
from fsspec.registry import known_implementations

from fmsd.atomic import NO_ROOM
from fmsd.errors import InputError, error_chain, reason
from fmsd.paths import file_digest
from fmsd.redaction import redact_message

log = logging.getLogger(__name__)

ADDRESS = re.compile(r"([A-Za-z][\w+.:-]*)://.*", re.ASCII | re.DOTALL)

PAUSES = (1, 2, 4, 8, 16, 32)
"""Seconds between the attempts to fetch a file."""

PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
}  # fmt: skip
"""What to install for the protocols of object stores."""

SILENCE = 60
"""Seconds without a byte after which an HTTP connection counts as lost."""

Result = TypeVar("Result")


class Expected(NamedTuple):
    """A file as it should come.

    Args:
        bytes: its length.
        sha256: in hexadecimal digits; None if unknown.
    """

    bytes: int
    sha256: str | None


class _DifferentError(Exception):
    """A file that came is not the expected one."""


class MissingError(InputError):
    """There is no such file at an address."""


class FetchError(InputError):
    """A tar at an address cannot be read: no fault of the single frame that is read from it."""


def is_remote(text: object) -> bool:
    """Whether a text is an address such as s3://BUCKET/FOLDER, rather than a path."""
    return isinstance(text, str) and ADDRESS.fullmatch(text) is not None


def check_address(text: str) -> str:
    """Returns an address, with its protocol in lower case and without a slash at its end.

    Raises:
        InputError: it holds credentials, or is of an unusual form; they are not in the message.
    """
    scheme, _, place = text.partition("://")
    if (
        "@" in place.partition("/")[0]
        or re.search(r"[?#*\[\]\\]|::|\$\{", text)
        or not text.isprintable()
        or not place.strip("/")
        or redact_message(text) != text
    ):
        raise InputError(
            f"The address {scheme}://... has no place, or more than one: a user name, a password, "
            "a token, a query, or a pattern",
            "give PROTOCOL://PLACE/FOLDER alone, and credentials where the library of the service "
            "finds them, such as AWS_ACCESS_KEY_ID or HF_TOKEN",
        )
    return f"{scheme.lower()}://{place.rstrip('/')}"


def fetch_bytes(address: str) -> bytes:
    """The content of a small file.

    Raises:
        InputError: it cannot be fetched.
    """
    return _attempt(lambda: _call(address, "cat_file"), address, PAUSES[:3])


def fetch_size(address: str) -> int | None:
    """The bytes of a file; None where its server does not tell them.

    Raises:
        MissingError: it is not there.
        InputError: it cannot be reached.
    """
    return _attempt(lambda: _call(address, "info")["size"], address, PAUSES[:3])


def fetch_file(address: str, path: Path, expected: Expected) -> None:
    """Fetches a file, in several attempts if the network or the content fails.

    Args:
        path: where it is written; it may be there in part.

    Raises:
        InputError: it cannot be fetched or written, or is another file than the expected one.
    """

    def fetch() -> None:
        _call(address, "get_file", str(path))
        size = path.stat().st_size
        if size != expected.bytes:
            raise _DifferentError(f"{size} of {expected.bytes} bytes came")
        if expected.sha256 not in (None, file_digest(path)):
            raise _DifferentError("its SHA-256 is not the recorded one")

    try:
        _attempt(fetch, address, PAUSES, path)
    except OSError as error:
        raise InputError(
            f"{path.parent} cannot take {address.rpartition('/')[2]} ({error.strerror})",
            "make room there, set FMSD_PACK_CACHE=SIZE lower, or set FMSD_CACHE to another folder",
        ) from error


def _call(address: str, method: str, *arguments: str) -> Any:
    """Calls a method of an address's file system on its path."""
    options: dict[str, Any] = {}
    if address.startswith("http"):
        import aiohttp  # noqa: PLC0415  for these addresses alone

        patience = aiohttp.ClientTimeout(None, sock_connect=SILENCE, sock_read=SILENCE)
        options["client_kwargs"] = {"timeout": patience}
    system, path = fsspec.url_to_fs(address, use_listings_cache=False, **options)
    return getattr(system, method)(path, *arguments)


def _attempt(
    work: Callable[[], Result], address: str, pauses: Sequence[float], out: Path | None = None
) -> Result:
    """The result of work that needs the network; what may pass is tried again after each pause.

    Args:
        out: the file that it writes.

    Raises:
        InputError: it fails for good.
        OSError: `out` cannot be written.
    """
    for pause in (*pauses, None):
        try:
            return work()
        except Exception as error:
            if isinstance(error, OSError) and (
                error.errno in NO_ROOM or (out is not None and error.filename == str(out))
            ):
                raise
            refusal = _refusal(error, address)
            if refusal is None and pause is None:
                refusal = InputError(
                    f"{address} cannot be fetched, also not in {len(pauses) + 1} attempts "
                    f"({_why(error)})",
                    "copy the pack there again"
                    if isinstance(error, _DifferentError)
                    else "see to the network and the address; a training that began goes on with "
                    "resume=RUN",
                )
            if refusal is not None:
                raise refusal from error
            log.warning("%s: %s; next attempt in %g s.", address, _why(error), pause)
            time.sleep(pause or 0)
    raise AssertionError("the last attempt returns or raises")


def _refusal(error: Exception, address: str) -> InputError | None:
    """The input error for what another attempt does not change; None for what may pass."""
    protocol = address.partition("://")[0]
    if isinstance(error, ImportError):
        hint = PACKAGES.get(protocol)
        return InputError(
            f"{protocol}:// needs a package that is not installed",
            f"pip install {hint}" if hint else _why(error),
        )
    if protocol.lower() not in known_implementations and isinstance(error, ValueError):
        return InputError(
            f"{protocol}:// is no known protocol",
            "give a folder, or an address that fsspec reads, such as s3://, gs://, hf:// or "
            "https://",
        )
    status = _http_status(error)
    if (
        isinstance(error, PermissionError)
        or status in (401, 403)
        or "NoCredentials" in type(error).__name__
    ):
        return InputError(
            f"There is no permission to read {address} ({_why(error)})",
            "log in, or set the credentials in the environment",
        )
    lost = any(type(each).__module__.startswith("aiohttp") for each in error_chain(error))
    if status in (404, 410) or (isinstance(error, FileNotFoundError) and not status and not lost):
        return MissingError(
            f"There is no {address} ({_why(error)})", "correct the address, or complete the copy"
        )
    return None


def _http_status(error: Exception) -> int | None:
    """The status with which a server refused; None where it did not."""
    for each in error_chain(error):
        response = getattr(each, "response", None)
        for status in (getattr(each, "status", None), getattr(response, "status_code", None)):
            if isinstance(status, int):
                return status
    return None


def _why(error: Exception) -> str:
    """The first line of an error without credentials."""
    return redact_message(reason(error))
