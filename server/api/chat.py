"""`WS /chat/ws`: text chat for pages (docs/browser.md)."""

from __future__ import annotations

from typing import Final, Protocol

import structlog
from fastapi import APIRouter
from starlette.websockets import WebSocket

from pipelines.clock import Clock
from server.agents.endpoint import ObservedWebSocket
from server.api.access import network_of, peer_of
from server.api.errors import too_many
from server.chats import ChatRefused, Chats
from server.store.base import StoreUnavailable
from server.throttle import Failures
from server.tokens import Grant, TokenChannel, TokenRefused
from transports.chat.page import ChatPage
from transports.chat.socket import Wire, serve_page

log = structlog.get_logger(__name__)

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of a websocket message that are read at all; a page may send 16 KiB."""
_BAD_TOKENS_BURST: Final = 20
_BAD_TOKENS_RATE: Final = 0.5
_CLOSING: Final = {"AGENT_OFFLINE": 1013, "SERVER_AT_CAPACITY": 1013, "STORE_UNAVAILABLE": 1013}


class ConsumeTokens(Protocol):
    """Whoever knows what tokens stand for."""

    async def consume(self, channel: TokenChannel, token: str, origin: str | None, agent_id: str | None) -> Grant:
        """Open a session. Raises TokenRefused, StoreUnavailable."""
        ...


class ChatDoor:
    """Lets pages in. Who keeps coming with bad tokens is turned away before the socket opens."""

    def __init__(self, chats: Chats, tokens: ConsumeTokens, clock: Clock) -> None:
        self._chats = chats
        self._tokens = tokens
        self._clock = clock
        self._failures = Failures(_BAD_TOKENS_RATE, _BAD_TOKENS_BURST)

    async def serve(self, websocket: WebSocket) -> None:
        """One page, from its handshake to its end. Raises ApiError 429 before the socket is open."""
        try:
            grant = await self._grant(websocket)
        except ChatRefused as refused:
            await _refuse(websocket, refused)
            return
        page = ChatPage(grant.agent.slug)
        wire = await _accept(websocket)
        try:
            thread = websocket.query_params.get("thread", "")
            chat, restored = self._chats.open(grant.agent, grant.metadata, page, thread)
        except ChatRefused as refused:
            page.refuse(refused.code, refused.error, _CLOSING.get(refused.code, 1008))
        else:
            page.open(chat, restored.thread_id, restored.said)
        await serve_page(websocket, page, wire)

    async def _grant(self, websocket: WebSocket) -> Grant:
        """What the token stands for. Raises ChatRefused, and ApiError 429 for one bad token too many."""
        if self._chats.full:
            raise ChatRefused("SERVER_AT_CAPACITY", "The gateway has no room for another conversation")
        token, origin = websocket.query_params.get("token", ""), websocket.headers.get("origin")
        try:
            return await self._tokens.consume("chat", token, origin, websocket.query_params.get("agent_id"))
        except TokenRefused as refused:
            if self._failures.too_many(network_of(peer_of(websocket)), self._clock.now()):
                raise too_many("Too many connections with bad tokens", 1 / _BAD_TOKENS_RATE) from refused
            raise ChatRefused(refused.code, refused.detail) from refused
        except StoreUnavailable as error:
            raise ChatRefused("STORE_UNAVAILABLE", "Tokens cannot be checked now; try again") from error


async def _accept(websocket: WebSocket) -> Wire | None:
    """Open the socket; answers what it can do beyond ASGI."""
    socket = websocket.scope.get("state", {}).get("socket")
    wire = socket if isinstance(socket, ObservedWebSocket) else None
    if wire is not None:
        wire.limit(MAX_MESSAGE)
    await websocket.accept()
    return wire


async def _refuse(websocket: WebSocket, refused: ChatRefused) -> None:
    """A page cannot read why a handshake failed, so it is let in for one frame."""
    page = ChatPage("")
    page.refuse(refused.code, refused.error, _CLOSING.get(refused.code, 1008))
    await serve_page(websocket, page, await _accept(websocket))


def chat_routes(door: ChatDoor) -> APIRouter:
    """The routes of the chat. `/ws` is an older name."""
    routes = APIRouter()

    @routes.websocket("/chat/ws")
    @routes.websocket("/ws")
    async def chat(websocket: WebSocket) -> None:  # pyright: ignore[reportUnusedFunction]
        await door.serve(websocket)

    return routes
