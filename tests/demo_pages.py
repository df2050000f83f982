"""A page of `fmsd demo` on a free port, with a detector that needs no weights, and its client."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fmsd.data.extraction.faces import Face
from fmsd.inference.crop_scoring import CropScores, CropSettings
from fmsd.inference.facts import DetectorFacts
from fmsd.inference.loaded_detector import LoadedDetector
from fmsd.inference.media import Sampling
from fmsd.inference.outcome import SuspiciousFace
from fmsd.inference.page.guard import Guard
from fmsd.inference.page.queue import JobQueue
from fmsd.inference.page.routes import Routes
from fmsd.inference.page.server import listen, serving
from fmsd.metrics.decision import score_meanings
from fmsd.metrics.score_meaning import VideoCounts
from fmsd.tasks.demo import file_answering

LIMIT = 300_000
"""Bytes of an upload."""

BOUNDARY = "a-line-that-no-file-has"


class Gate:
    """A scorer that takes red crops for fakes, and that a test can hold.

    Attributes:
        open: whether it scores; it waits otherwise.
        fails: whether it breaks instead.
    """

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.fails = False

    def __call__(self, crops: np.ndarray) -> CropScores:
        """The mean of red as the score."""
        assert self.open.wait(60)
        if self.fails:
            raise ZeroDivisionError("a secret detail")
        return CropScores(crops[..., 0].mean((1, 2)) / 255, np.full(len(crops), 0.5))


class BrightFaces:
    """Finds one face, the middle of every image that is not dark."""

    about: Mapping[str, Any] = {}

    def __call__(self, image: np.ndarray) -> list[Face]:
        """See the class."""
        height, width = image.shape[:2]
        box = (width / 4, height / 4, width / 2, height / 2)
        points = np.array([(0.4, 0.4), (0.6, 0.4), (0.5, 0.5), (0.4, 0.6), (0.6, 0.6)])
        face = Face(box, points * (width, height), 0.9)
        return [face] if image.mean() > 60 else []


def gate_detector(gate: Gate) -> LoadedDetector:
    """A detector of which 40 validation videos are known."""
    generator = np.random.default_rng(0)
    label = np.arange(40) % 2
    validation = pl.DataFrame(
        {
            "dataset": "faces",
            "video": [f"v{number}" for number in range(40)],
            "label": label,
            "logit": generator.normal(size=40) + 3 * label - 1.5,
        }
    )
    counts, meanings = {"faces": VideoCounts(20, 20)}, score_meanings(validation)
    facts = DetectorFacts("mine", 64, CropSettings(), True, "mean", counts, "iid", meanings)

    def heat(faces: list[SuspiciousFace]) -> list[np.ndarray]:
        return [face.crop[..., 0].astype(np.float32) for face in faces]

    return LoadedDetector(facts, gate, BrightFaces, 0.9, heat)  # pyright: ignore[reportArgumentType]


class Reply(NamedTuple):
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The content of a JSON answer."""
        return json.loads(self.body)


class Page(NamedTuple):
    """A page that is served.

    Args:
        folder: of the uploads.
    """

    port: int
    folder: Path
    gate: Gate
    queue: JobQueue

    @property
    def address(self) -> str:
        """The address that a browser opens."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """The answer to a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        answer = connection.getresponse()
        reply = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return reply

    def send(
        self, content: bytes, name: str = "a.png", field: str = "file", **headers: str
    ) -> Reply:
        """Uploads a file."""
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return self.ask(
            "POST", "/api/predictions", form(content, name, field), content_type=kind, **headers
        )

    def wait(self, key: str, *states: str) -> dict[str, Any]:
        """The state of a job once it is one of some."""
        for _ in range(600):
            state = self.ask("GET", f"/api/predictions/{key}").json
            if state.get("state") in (states or ("done", "failed")):
                return state
            time.sleep(0.05)
        raise AssertionError(state)

    def answer(self, content: bytes, name: str = "a.png") -> dict[str, Any]:
        """What is found in a file."""
        state = self.wait(self.send(content, name).json["id"])
        assert state["state"] == "done", state
        return state

    def uploads(self) -> list[Path]:
        """The files of uploads on the disk."""
        return list(self.folder.iterdir())

    def connect(self) -> socket.socket:
        """A connection for requests that break off."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


def form(content: bytes, name: str, field: str = "file") -> bytes:
    """A form with a file."""
    quoted = name.replace('"', "%22")
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{quoted}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


@contextlib.contextmanager
def served_page(folder: Path, **settings: Any) -> Iterator[Page]:
    """Serves a page, and works on its jobs in a thread.

    Args:
        settings: of the queue.
    """
    gate, queue, done = Gate(), JobQueue(**settings), threading.Event()
    answering = file_answering(gate_detector(gate), Sampling(6), "fpr5")
    routes = Routes(queue, folder, LIMIT, {"run": "mine", "at": "fpr5"})

    def work() -> None:
        while not done.is_set():
            queue.work(answering, 0.1)

    with listen("127.0.0.1", 0) as listener:
        guarded = Guard(routes.app(), "127.0.0.1", local=True)
        with serving(guarded, listener) as alive:
            worker = threading.Thread(target=work)
            worker.start()
            try:
                yield Page(listener.getsockname()[1], folder, gate, queue)
            finally:
                done.set()
                gate.open.set()
                worker.join()
                assert alive()
