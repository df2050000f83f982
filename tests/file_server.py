"""A folder over HTTP, with the failures that networks have."""

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """A folder that is served.

    Args:
        faults: by name of a file, what its next requests get instead: `drop`, `500`, `short`,
            `wrong`, `403`, `stall`; the last one stays if `lasting`.
    """

    folder: Path
    address: str = ""
    faults: dict[str, list[str]] = field(default_factory=dict)
    lasting: bool = False
    sent: Counter[str] = field(default_factory=Counter)
    stalled: threading.Event = field(default_factory=threading.Event)

    def fault(self, name: str) -> str:
        left = self.faults.get(name, [])
        return (left[0] if self.lasting else left.pop(0)) if left else ""


class Handler(BaseHTTPRequestHandler):
    served: Served
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.served.folder / self.path.lstrip("/")
        fault = "" if self.command == "HEAD" else self.served.fault(path.name)
        if fault == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault in ("500", "403") or not path.is_file():
            self.send_response(int(fault or 404))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "wrong":
            body = body[:700] + bytes([body[700] ^ 1]) + body[701:]
        if fault in ("short", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if fault == "stall":
                self.served.stalled.wait(20)
            self.close_connection = True
            return
        if not fault:
            self.served.sent[path.name] += 1
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Says nothing."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serves a folder on this machine."""
    served = Served(folder)
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Serving", (Handler,), {"served": served})
    ) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        served.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield served
        finally:
            served.stalled.set()
            server.shutdown()
            thread.join()
