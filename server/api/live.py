"""Listening to a call while it lasts: `GET /live/{id}/player`, `WS /live/{id}/ws` (docs/live.md).

The key travels in the query, because neither a link nor a browser's websocket can carry it otherwise: here, and only
here.
"""

from __future__ import annotations

import asyncio
from importlib.resources import files
from string import Template
from typing import Final

import structlog
from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import HTMLResponse, Response
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from server.agents.endpoint import observed_socket
from server.api.access import Access, peer_of
from server.api.errors import ApiError
from server.live import END, Listener, LiveListening, NotLive, NotYours, TooManyListeners

log = structlog.get_logger(__name__)

STUCK_SECONDS: Final = 30.0
"""A listener that takes nothing for so long is given up."""
GOODBYE_SECONDS: Final = 5.0
_PAGES = files("server") / "pages" / "live"
_ASSETS: Final = {
    "player.js": "text/javascript; charset=utf-8",
    "worklet.js": "text/javascript; charset=utf-8",
    "player.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_PAGE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' blob:; worker-src 'self' blob:; style-src 'self'; img-src 'self'; "
        "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_ASSET_HEADERS: Final = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
_REFUSALS: Final = {
    401: ("This link is not valid", "The key in it is missing, wrong, or no longer in use. Ask for a new link."),
    403: ("This call is not yours", "It belongs to another organisation than the key in this link."),
    404: ("There is nothing to hear here", "The call is over, or it may not be listened to."),
    429: ("Not now", "Too many attempts. Wait a moment, then reload this page."),
}
"""What a person is told who opens a link in vain."""


def live_routes(listening: LiveListening, access: Access) -> APIRouter:
    """The player, what it is made of, and the sound."""
    routes = APIRouter()
    texts = {name: (_PAGES / name).read_bytes() for name in (*_ASSETS, "player.html")}
    refusal = Template((_PAGES / "refused.html").read_text("utf-8"))

    @routes.get("/live/assets/{name}")
    async def asset(name: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        if name not in _ASSETS:
            raise ApiError(404, "NOT_FOUND", "Not Found")
        return Response(texts[name], headers=_ASSET_HEADERS, media_type=_ASSETS[name])

    @routes.get("/live/{call_id}/player")
    async def player(call_id: str, request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        try:
            org_id, _ = await _shown(request, access)
            _check(listening, call_id, org_id)
        except ApiError as error:
            if error.status not in _REFUSALS or "text/html" not in request.headers.get("accept", ""):
                raise
            title, text = _REFUSALS[error.status]
            page = refusal.substitute(title=title, text=text)
            return HTMLResponse(page, error.status, {**_PAGE_HEADERS, **error.headers})
        return HTMLResponse(texts["player.html"], headers=_PAGE_HEADERS)

    @routes.websocket("/live/{call_id}/ws")
    async def listen(websocket: WebSocket, call_id: str) -> None:  # pyright: ignore[reportUnusedFunction]
        org_id, key = await _shown(websocket, access)
        listener = _join(listening, call_id, org_id, key)
        try:
            await websocket.accept()
            await _serve(websocket, listener)
        except WebSocketDisconnect:
            pass
        finally:
            listening.leave(listener)

    return routes


async def _shown(connection: HTTPConnection, access: Access) -> tuple[str, str]:
    """Whose key is in the query, and the key. Raises ApiError."""
    keys = frozenset(connection.query_params.getlist("token"))
    if not any(keys):
        raise ApiError(401, "UNAUTHORIZED", "An API key is required: ?token=pk_…")
    org_id = await access.org_of(keys, peer_of(connection))
    return org_id, next(iter(keys))


def _check(listening: LiveListening, call_id: str, org_id: str) -> None:
    try:
        listening.check(call_id, org_id)
    except (NotLive, NotYours) as error:
        raise _refusal(error) from None


def _join(listening: LiveListening, call_id: str, org_id: str, key: str) -> Listener:
    try:
        return listening.join(call_id, org_id, key)
    except (NotLive, NotYours, TooManyListeners) as error:
        raise _refusal(error) from None


def _refusal(error: NotLive | NotYours | TooManyListeners) -> ApiError:
    match error:
        case NotYours():
            return ApiError(403, "FORBIDDEN", "The call belongs to another organisation")
        case NotLive():
            return ApiError(404, "NOT_FOUND", "No call of that id can be listened to")
        case TooManyListeners():
            return ApiError(429, "TOO_MANY_LISTENERS", "Too many people listen to this call")


async def _serve(websocket: WebSocket, listener: Listener) -> None:
    """Send what comes until one side is gone. A peer that takes nothing any more is cut off."""
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(_read(websocket, listener), name="listener")
        try:
            await _send(websocket, listener)
        except WebSocketDisconnect:
            pass
        except TimeoutError:
            log.info("listener_stuck", call_id=listener.call_id, org=listener.org_id)
            socket = observed_socket(websocket)
            if socket is not None:
                socket.abort()
        finally:
            reading.cancel()


async def _read(websocket: WebSocket, listener: Listener) -> None:
    """Nothing that a listener says means anything, except that it goes."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
    listener.end()


async def _send(websocket: WebSocket, listener: Listener) -> None:
    await websocket.send_json(
        {
            "type": "metadata",
            "sampleRate": listener.rate,
            "channels": 1,
            "bitDepth": 16,
            "sessionId": listener.call_id,
        }
    )
    while (frame := await listener.next()) is not None:
        async with asyncio.timeout(STUCK_SECONDS):
            await websocket.send_bytes(frame)
    async with asyncio.timeout(GOODBYE_SECONDS):
        if listener.revoked:
            await websocket.close(1008, "revoked")
        else:
            await websocket.send_bytes(END)
            await websocket.close(1000)
