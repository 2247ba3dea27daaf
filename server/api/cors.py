"""Which answers pages of other sites may read (browser §1.6), and paths with a slash too many.

Stands before the whole application, so that errors of every kind carry the same headers: a page that may not read an
answer sees a network error instead of what is wrong. No route uses cookies, and none of this lets anybody in.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ANYBODY: Final = (
    "/webrtc/ice-servers",
    "/webrtc/offer",
    "/api/sdk/agent-info",
    "/api/sdk/voices",
    "/api/scribe",
)
"""Open to every page: a token or nothing is needed there. Each with everything beneath it."""
ASKER: Final = ("/webrtc/token", "/chat/token")
"""Answers depend on who asks, so they name the origin that asked."""
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "content-type, authorization, x-api-key",
    "Access-Control-Max-Age": "600",
}


class _Rule(Enum):
    ANYBODY = "anybody"
    ASKER = "asker"


class Cors:
    """ASGI: `app`, with the headers that pages of other sites need."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Websockets and the server's own life pass through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        # A base address written with a slash at its end makes `//api/…`: the same thing.
        scope["path"] = "/" + scope["path"].lstrip("/")
        rule = _rule(scope["path"])
        if scope["type"] != "http" or rule is None:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        allowed = _allowed(rule, headers)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add(MutableHeaders(scope=message), allowed)
            await send(message)

        if scope["method"] == "OPTIONS":
            await _preflight(headers)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)


def _rule(path: str) -> _Rule | None:
    if path in ASKER:
        return _Rule.ASKER
    if any(path == open_ or path.startswith(open_ + "/") for open_ in ANYBODY):
        return _Rule.ANYBODY
    return None


def _allowed(rule: _Rule, headers: Headers) -> dict[str, str]:
    if rule is _Rule.ANYBODY:
        return {"Access-Control-Allow-Origin": "*"}
    origins = headers.getlist("origin")
    # No browser sends two; whoever does is no page that could read the answer.
    origin = {"Access-Control-Allow-Origin": origins[0].strip()} if len(origins) == 1 else {}
    return {**origin, "Vary": "Origin"}


def _add(headers: MutableHeaders, allowed: dict[str, str]) -> None:
    for name, value in allowed.items():
        if name == "Vary":
            headers.add_vary_header(value)
        else:
            headers[name] = value


def _preflight(headers: Headers) -> Response:
    answer = dict(_PREFLIGHT)
    if headers.get("access-control-request-private-network") == "true":
        answer["Access-Control-Allow-Private-Network"] = "true"
    return Response(status_code=204, headers=answer)
