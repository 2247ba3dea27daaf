"""The console's doors: the page, signing in, its live feed, and tokens to talk with an agent from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog
from fastapi import APIRouter, Request, Response, WebSocket
from fastapi.responses import FileResponse
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from pipelines.clock import Clock
from server.agents.agent import slugify
from server.agents.calls import LiveCalls
from server.api.access import Access, peer_of
from server.api.body import body_of
from server.api.errors import ApiError, JsonAnswer
from server.console.feed import Feed
from server.console.messages import Agents, Health, Hello, Message, Ringing
from server.console.records import Records
from server.console.visitors import COOKIE, COOKIE_PATH, KEPT_SECONDS, Visitors, from_own_page
from server.store.base import AgentKey
from server.tokens import Minted, TokenChannel

log = structlog.get_logger(__name__)

PAGE: Final = Path(__file__).resolve().parent.parent / "console" / "page"
LOOK_SECONDS: Final = 1.0
"""How often agents are looked at for a page that is open."""
HEALTH_SECONDS: Final = 2.0
_NOT_KEPT: Final = {"Cache-Control": "no-store"}
_MAX_BODY: Final = 4096
_T = TypeVar("_T")
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
POLICY: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; media-src 'self' blob:; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class SignIn(msgspec.Struct):
    """The body of signing in."""

    key: str


class Wanted(msgspec.Struct):
    """The body of asking for a token."""

    agent: str
    channel: TokenChannel = "webrtc"


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """What the console shows. `mint` makes a token as for a key of the agent's organisation, or raises ApiError."""

    records: Records
    visitors: Visitors
    access: Access
    clock: Clock
    agents: Callable[[str], Agents]
    ringing: Callable[[str], Ringing]
    health: Callable[[str], Health]
    live: LiveCalls
    secure: bool
    """Visitors come by HTTPS, whatever a proxy before us says."""
    key_kept: str
    """Where the generated key is, "" for none."""
    mint: Callable[[TokenChannel, AgentKey], Awaitable[Minted]]


def console_routes(parts: ConsoleParts) -> APIRouter:
    """`/` and everything below `/console`."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def page() -> Response:  # pyright: ignore[reportUnusedFunction]
        return _file("index.html")

    @routes.get("/console/page/{name}")
    async def asset(name: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        return _file(name)

    @routes.get("/console/session")
    async def session(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        org_id = parts.visitors.org_of(request)
        return JsonAnswer({"signed_in": org_id is not None, "org": org_id}, headers=dict(_NOT_KEPT))

    @routes.post("/console/session")
    async def sign_in(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        if not from_own_page(request):
            raise ApiError(403, "FORBIDDEN", "Sign in on the console's own page")
        key = (await _body(request, SignIn)).key.strip()
        org_id = await parts.access.org_of(frozenset({key}), peer_of(request))
        answer = JsonAnswer({"signed_in": True, "org": org_id}, headers=dict(_NOT_KEPT))
        answer.set_cookie(
            COOKIE,
            parts.visitors.sign_in(key, org_id),
            max_age=int(KEPT_SECONDS),
            httponly=True,
            secure=parts.secure or request.url.scheme == "https",
            samesite="strict",
            path=COOKIE_PATH,
        )
        return answer

    @routes.delete("/console/session")
    async def sign_out(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        if from_own_page(request):
            parts.visitors.sign_out(request)
        answer = JsonAnswer({"signed_in": False, "org": None})
        answer.delete_cookie(COOKIE, path=COOKIE_PATH)
        return answer

    @routes.post("/console/token")
    async def token(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        org_id = _visitor(parts, request)
        wanted = await _body(request, Wanted)
        minted = await parts.mint(wanted.channel, AgentKey(org_id, slugify(wanted.agent)))
        return JsonAnswer({"token": minted.token, "expires_in": minted.expires_in}, headers=dict(_NOT_KEPT))

    @routes.websocket("/console/feed")
    async def feed(websocket: WebSocket) -> None:  # pyright: ignore[reportUnusedFunction]
        org_id = _visitor(parts, websocket)
        await websocket.accept()
        await _serve(websocket, parts, Feed(parts.records, parts.live, org_id))

    return routes


def _visitor(parts: ConsoleParts, connection: HTTPConnection) -> str:
    org_id = parts.visitors.org_of(connection)
    if org_id is None:
        raise ApiError(401, "UNAUTHORIZED", "Sign in with an API key")
    return org_id


def _file(name: str) -> Response:
    """One of the page's own files; the folder is flat, so a name is all there is to it."""
    path = PAGE / name
    if path.parent != PAGE or path.suffix not in _TYPES or not path.is_file():
        raise ApiError(404, "NOT_FOUND", "There is no such page")
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=POLICY)


async def _body(request: Request, type_: type[_T]) -> _T:
    body = await body_of(request, _MAX_BODY)
    try:
        return msgspec.json.decode(body, type=type_)
    except (ValueError, RecursionError):
        raise ApiError(400, "BAD_REQUEST", "The body is not as it should be") from None


async def _serve(websocket: WebSocket, parts: ConsoleParts, feed: Feed) -> None:
    """One open page, until either side goes."""
    feed.tell(
        Hello(
            org=feed.org_id,
            version=version("voice-gateway"),
            now=parts.clock.wall(),
            open=parts.visitors.is_open_to(websocket),
            key_kept=parts.key_kept,
        )
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            others = [
                tasks.create_task(_write(websocket, feed), name="console write"),
                tasks.create_task(_look(websocket, parts, feed), name="console look"),
            ]
            await _read(websocket, feed)
            for task in others:
                task.cancel()
    except* Exception:
        # The root of this page's tasks: its fault is nobody else's.
        log.exception("console_failed", org=feed.org_id)
    finally:
        feed.close()


async def _read(websocket: WebSocket, feed: Feed) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        feed.asked(message.get("text") or "")


async def _write(websocket: WebSocket, feed: Feed) -> None:
    try:
        while (message := await feed.next()) is not None:
            await websocket.send_text(message)
        await websocket.close(1013, "too slow")
    except (WebSocketDisconnect, RuntimeError):
        # The page went while we wrote; the reader hears of it, too.
        return


async def _look(websocket: WebSocket, parts: ConsoleParts, feed: Feed) -> None:
    """Tell what has changed about agents, and how the gateway fares; and see that the visitor may still look."""
    shown: list[Message] = []
    health_due = 0.0
    while parts.visitors.org_of(websocket) == feed.org_id:
        seen: list[Message] = [parts.agents(feed.org_id), parts.ringing(feed.org_id)]
        for message in seen:
            if message not in shown:
                feed.tell(message)
        shown = seen
        if parts.clock.now() >= health_due:
            health_due = parts.clock.now() + HEALTH_SECONDS
            feed.tell(parts.health(feed.org_id))
        await asyncio.sleep(LOOK_SECONDS)
    await websocket.close(4401, "signed out")
