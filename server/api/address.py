"""Where the gateway is reached: proxies that are believed, and the address that clients are told to come back to."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from server.origins import Origin, parse_origin


class BehindProxies:
    """ASGI: `app`, told by trusted proxies who asked (`X-Forwarded-For`), how (`-Proto`) and for which host (`-Host`).

    From anybody else these headers mean nothing.
    """

    def __init__(self, app: ASGIApp, trusted: str) -> None:
        """`trusted`: addresses and networks, separated by commas."""
        # Starlette and uvicorn spell the same interface in different types.
        self._app = cast("ASGIApp", proxied := ProxyHeadersMiddleware(cast("object", app), trusted))  # pyright: ignore[reportArgumentType]
        self._trusted = proxied.trusted_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        peer = scope.get("client")
        if peer is not None and peer[0] in self._trusted:
            forwarded = Headers(scope=scope).get("x-forwarded-host", "").split(",")[-1].strip()
            if forwarded and parse_origin("http://" + forwarded) is not None:
                others = [header for header in scope["headers"] if header[0] != b"host"]
                scope["headers"] = [*others, (b"host", forwarded.encode("latin-1"))]
        await self._app(scope, receive, send)


def address_of(connection: HTTPConnection, public_url: str | None, otherwise: str) -> str:
    """The gateway's address for whoever sent that request: http(s), without a slash at the end.

    `PUBLIC_URL` if there is one, else as the request was addressed, else `otherwise`.
    """
    if public_url is not None:
        return public_url.rstrip("/")
    scheme = connection.url.scheme.replace("ws", "http", 1)
    asked = parse_origin(f"{scheme}://{connection.headers.get('host', '')}")
    return otherwise if asked is None else str(asked)


def origin_of_address(address: str) -> Origin | None:
    """The origin of pages that the gateway itself serves there."""
    parts = urlsplit(address)
    return parse_origin(f"{parts.scheme}://{parts.netloc}")


def origin_sent(connection: HTTPConnection) -> str | None:
    """The `Origin` header, None if there is none. Several make one text that is no origin."""
    sent = connection.headers.getlist("origin")
    return ", ".join(text.strip() for text in sent) if sent else None
