"""The addresses of the page and of its REST interface, which docs/verbs/demo.md describes."""

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from fmsd.errors import sentence
from fmsd.inference.page.queue import Job, JobQueue, QueueFullError, failure
from fmsd.inference.page.uploads import (
    Body,
    RefusedError,
    display_name,
    keep_file,
    known_suffix,
    receive_file,
)
from fmsd.report import html

HERE = Path(__file__).parent

STATIC = {
    "/": HERE / "index.html",
    "/demo.css": HERE / "demo.css",
    "/demo.js": HERE / "demo.js",
    "/report.css": html.FOLDER / "page.css",
    "/report.js": html.FOLDER / "page.js",
}
"""The files of the page: its own, and those of every report."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of the page: scripts are its own files, and nothing is from elsewhere."""

RESULT_POLICY = f"{html.POLICY}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The same of the page of a result."""


class Routes:
    """Answers requests.

    Args:
        queue: the jobs.
        folder: of the uploads.
        limit: bytes of an upload, at most.
        about: what the page shows of the detector and its settings.
    """

    def __init__(self, queue: JobQueue, folder: Path, limit: int, about: dict[str, Any]) -> None:
        self.queue, self.folder, self.limit = queue, folder, limit
        self.about = about | {"limit": limit}

    def app(self) -> Starlette:
        """The application, see ASGI."""
        job = "/api/predictions/{key}"
        return Starlette(
            routes=[
                *(Route(path, _static_file(file)) for path, file in STATIC.items()),
                Route("/api", self.show_about),
                Route("/api/predictions", self.create, methods=["POST"]),
                Route(job, self.show),
                Route(job, self.delete, methods=["DELETE"]),
                Route("/predictions/{key}", self.show_page),
            ],
            exception_handlers={404: _no_address, 405: _no_address},
        )

    async def show_about(self, request: Request) -> Response:
        """What the page shows of the detector and its settings."""
        return JSONResponse(self.about)

    async def create(self, request: Request) -> Response:
        """Receives a file and lets it wait for its turn."""
        body = Body(request, self.limit)
        try:
            job = await self.receive(body)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except RefusedError as error:
            await body.discard()
            headers = {"connection": "close"}
            return JSONResponse({"error": error.text}, error.status, headers)
        return JSONResponse(self.state(job), 202, {"location": _address(job)})

    async def receive(self, body: Body) -> Job:
        """The job of a file that is received, written to the disk and submitted.

        Raises:
            RefusedError: too many files wait, or this one cannot be received.
            ClientDisconnect: the client has gone.
        """
        try:
            job = self.queue.admit()
        except QueueFullError as error:
            text = f"{self.queue.most} files wait already"
            raise RefusedError(503, sentence(text, "send this one later")) from error
        try:
            await self.enqueue(job, await receive_file(body))
        except OSError as error:
            raise RefusedError(507, failure(error)) from error
        finally:
            if job.state == "uploading":
                self.queue.drop(job)
        return job

    async def enqueue(self, job: Job, file: UploadFile) -> None:
        """Writes a received file to the disk, under a name of our own, and submits its job."""
        job.name = display_name(file.filename)
        job.file = self.folder / f"{job.id}{known_suffix(job.name)}"
        await keep_file(file, job.file)
        self.queue.submit(job)

    def state(self, job: Job) -> dict[str, Any]:
        """A job as JSON."""
        return {
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "place": self.queue.place(job),
            "progress": {"fraction": job.fraction, "seconds": self.queue.seconds_of(job)},
            "message": job.message,
            "address": _address(job),
            "page": f"/predictions/{job.id}" if job.answer else None,
            "result": job.answer.document if job.answer else None,
        }

    async def show(self, request: Request) -> Response:
        """The state of a job, and its result if it is done."""
        job = self.queue.find(request.path_params["key"])
        return JSONResponse(self.state(job)) if job else self.unknown(request)

    async def show_page(self, request: Request) -> Response:
        """The result of a job as a page of its own."""
        job = self.queue.find(request.path_params["key"])
        if job is None or job.answer is None:
            return self.unknown(request)
        return HTMLResponse(job.answer.page, headers={"content-security-policy": RESULT_POLICY})

    async def delete(self, request: Request) -> Response:
        """Forgets a job: it loses its place, its work ends, its result is deleted."""
        if (job := self.queue.find(request.path_params["key"])) is None:
            return self.unknown(request)
        self.queue.drop(job)
        return Response(status_code=204)

    def unknown(self, request: Request) -> Response:
        """The answer to an address of no job."""
        return _error(
            404,
            f"There is no prediction at {request.url.path}; the latest {self.queue.kept} are kept "
            f"for {self.queue.seconds / 60:g} minutes.",
        )


def _address(job: Job) -> str:
    return f"/api/predictions/{job.id}"


def _static_file(file: Path) -> Any:
    async def send(request: Request) -> Response:
        return FileResponse(file, headers={"content-security-policy": PAGE_POLICY})

    return send


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)


async def _no_address(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _error(status, f"There is no {request.method} {request.url.path} here.")
