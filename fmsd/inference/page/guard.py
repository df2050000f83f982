"""Which requests are answered: those of this machine's own page, or of programs.

Every page that is open in a browser may send requests to 127.0.0.1. It is refused by the header
`Origin`, which browsers set, and where it has given its own name the address 127.0.0.1 (DNS
rebinding) by the header `Host`.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")

HEADERS: Mapping[str, str] = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Headers of every answer that does not set them itself."""


class Guard:
    """Refuses requests in the name of other pages, and sets `HEADERS`.

    Args:
        app: what answers the others.
        host: the host that the server was told to listen on.
        local: whether only this machine can reach it.
    """

    def __init__(self, app: ASGIApp, host: str, local: bool) -> None:
        self.app, self.host, self.local = app, host.lower(), local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, see ASGI."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if (refusal := self.refusal(scope["method"], Headers(scope=scope))) is None:
            await self.app(scope, receive, send_with_headers)
        else:
            response = JSONResponse({"error": refusal}, 403, {"connection": "close"})
            await response(scope, receive, send_with_headers)

    def refusal(self, method: str, headers: Headers) -> str | None:
        """Why a request is refused, as a sentence; None if it is not."""
        host = headers.get("host", "")
        if not self.is_own(host):
            return (
                f"The request is for {host[:100] or 'no host'}, which is not this page; open the "
                "address that fmsd demo prints, or set host= to that name."
            )
        if method in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        foreign = origin is not None and _place(origin) != host.lower()
        if foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "The request comes from a page of another address; send it from this one."
        return None

    def is_own(self, host: str) -> bool:
        """Whether a header `Host` names this server, at any port, as a tunnel may have another.

        A name that another page could have given an address is foreign; numbers are addresses.
        """
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if name is None or name in (*LOOPBACK, self.host):
            return name is not None
        return not self.local and (_is_number(name) or name == socket.gethostname().lower())


def _place(origin: str) -> str:
    """Host and port of an origin; empty where it has none."""
    try:
        return urlsplit(origin.lower()).netloc
    except ValueError:
        return ""


def _is_number(name: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False
