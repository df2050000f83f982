"""The server of the page: it answers in a thread of its own, so that signals stay the main one's.

Starlette and uvicorn and three files of HTML, CSS and JavaScript are all of it. Gradio would load
fonts and scripts from other hosts, report its use, and bring dozens of packages.
"""

import contextlib
import importlib.util
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fmsd.errors import InputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

PACKAGES = {"starlette": "starlette", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
"""Modules that the page needs, and their packages."""

END = 5.0
"""Seconds that the end of the server may take."""

CONNECTIONS = 64
"""Requests at one time, at most."""


def check_installed() -> None:
    """Refuses to go on without the packages of the page.

    Raises:
        InputError: one is missing.
    """
    missing = [
        package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise InputError(
            f"fmsd demo needs the packages {', '.join(missing)}",
            "install them with: pip install 'fmsd[page]'",
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        port: 0 for any free one.

    Raises:
        InputError: this machine has no such address, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=CONNECTIONS)
    except socket.gaierror as error:
        raise InputError(
            f"host={host} is no address ({error.strerror})",
            "leave it out for this machine alone, or give one of its addresses",
        ) from error
    except OSError as error:
        raise InputError(
            f"The page cannot listen on host={host} port={port} ({error.strerror})",
            "give another port= (0 for any that is free), or another host=",
        ) from error


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine can reach a listening socket."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def page_address(listener: socket.socket, host: str) -> str:
    """The address that a browser opens."""
    port = listener.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextlib.contextmanager
def serving(app: "ASGIApp", listener: socket.socket) -> Iterator[Callable[[], bool]]:
    """Answers requests while the block runs; yields whether the server still does."""
    import uvicorn  # noqa: PLC0415  an extra

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield thread.is_alive
    finally:
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # of requests that it breaks off
        server.should_exit = True
        thread.join(END)
