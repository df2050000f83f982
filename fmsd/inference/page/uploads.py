"""Receives the file of a form: counted while it arrives, and under a name of our own."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from fmsd.data.loading.image import SUFFIXES, UNSUPPORTED_SUFFIXES
from fmsd.data.sources.tree import UNDECODED_VIDEO_SUFFIXES, VIDEO_SUFFIXES
from fmsd.errors import sentence
from fmsd.inference.file_section import shown_name

FIELD = "file"
"""The name of the form's field."""

PATIENCE = 30.0
"""Seconds without a byte after which an upload is given up."""

SLOWEST = 50_000
"""Bytes per second that an upload must reach on average, after its first `PATIENCE` seconds."""

DISCARDED = 10.0
"""Seconds for which a refused client may send the rest."""

MEGABYTE = 10**6

LONGEST_NAME = 200
"""Characters of a file's name that are shown."""


class RefusedError(Exception):
    """A request that is not answered as it wishes.

    Args:
        status: of the answer, by HTTP.
        text: why, as a sentence.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status, self.text = status, text


class Body:
    """The bytes of a request, which are counted while they arrive.

    Args:
        limit: bytes, at most.
        patience: seconds, see `PATIENCE`.
        slowest: bytes per second, see `SLOWEST`.
    """

    def __init__(
        self, request: Request, limit: int, patience: float = PATIENCE, slowest: float = SLOWEST
    ) -> None:
        self.request, self.limit = request, limit
        self.patience, self.slowest = patience, slowest
        self.ended = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The bytes as they arrive.

        Raises:
            RefusedError: there are too many, nothing more arrives, or they arrive too slowly.
            ClientDisconnect: the client has gone.
        """
        self.count(self._declared())
        size, clock = 0, asyncio.get_running_loop()
        latest = clock.time() + self.patience
        while not self.ended:
            deadline = min(latest + size / self.slowest, clock.time() + self.patience)
            try:
                async with asyncio.timeout_at(deadline):
                    message = await self.request.receive()
            except TimeoutError as error:
                raise RefusedError(
                    408, "Nothing more of the file arrives, or too slowly; send it again."
                ) from error
            if message["type"] == "http.disconnect":
                self.ended = True
                raise ClientDisconnect
            self.ended = not message.get("more_body", False)
            size += len(message.get("body", b""))
            self.count(size)
            yield message.get("body", b"")

    def count(self, size: int) -> None:
        """Refuses a size above the limit.

        Raises:
            RefusedError: see above.
        """
        if size > self.limit:
            text = f"The file is larger than {self.limit / MEGABYTE:g} MB"
            raise RefusedError(
                413, sentence(text, "cut it, or start fmsd demo with a higher limit=")
            )

    async def discard(self) -> None:
        """Reads what the client still sends, so that it goes on to read the answer.

        A client that waits for leave to send (`Expect: 100-continue`) is not given it.
        """
        if "expect" in self.request.headers:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARDED):
                while not self.ended:
                    self.ended = not (await self.request.receive()).get("more_body", False)

    def _declared(self) -> int:
        """The size that the header declares; 0 where it declares none."""
        text = self.request.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


async def receive_file(body: Body) -> UploadFile:
    """The file of a form; to be closed.

    Its bytes lie in memory or in a file without a name, which ends with this process.

    Raises:
        RefusedError: it is too large, or there is none, or several.
        ClientDisconnect: the client has gone.
    """
    headers = body.request.headers
    if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RefusedError(400, no_file("it is no form, multipart/form-data"))
    parser = MultiPartParser(headers, body.chunks(), max_files=1, max_fields=8)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RefusedError(400, no_file(error.message.rstrip("."))) from error
    file = form.get(FIELD)
    if not isinstance(file, UploadFile):
        await form.close()
        raise RefusedError(400, no_file(f"no file in the field {FIELD}"))
    return file


def no_file(why: str) -> str:
    """Why a request has no file, as a sentence."""
    return sentence(
        f"The request holds no file ({why})", f"send one in the field {FIELD} of a form"
    )


async def keep_file(file: UploadFile, path: Path) -> None:
    """Writes a received file to a new one on the disk, and closes it."""
    try:
        await run_in_threadpool(_copy, file.file, path)
    finally:
        await file.close()


def _copy(source: BinaryIO, path: Path) -> None:
    with path.open("xb") as target:
        shutil.copyfileobj(source, target, 2**20)


def display_name(given: str | None) -> str:
    """The name of a file as it is shown; never part of a path."""
    name = PurePosixPath((given or "").replace("\\", "/")).name
    return shown_name(name)[-LONGEST_NAME:] or "upload"


def known_suffix(name: str) -> str:
    """The suffix of a name if it is one of images or videos, also of those that are not decoded.

    Of any other the content decides.

    Lists of other files, such as playlists, are refused whatever their suffix, see
    `fmsd.data.extraction.opening.CONTAINERS`.
    """
    suffix = PurePosixPath(name).suffix.lower()
    known = SUFFIXES | VIDEO_SUFFIXES | UNSUPPORTED_SUFFIXES | UNDECODED_VIDEO_SUFFIXES
    return suffix if suffix in known else ""
