"""The websocket of a chat page: carries frames between it and its `ChatPage`, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from transports.chat.page import ChatPage

log = structlog.get_logger(__name__)

PING_SECONDS: Final = 25.0
"""How often the page's browser is asked for a sign of life."""
STALE_SECONDS: Final = 60.0
"""Silence of the browser, pongs included, after which nobody is there."""
SEND_SECONDS: Final = 20.0
"""A frame that cannot be written for so long is not being read."""
CLOSE_SECONDS: Final = 5.0
"""For the last frames and the closing handshake."""


class Wire(Protocol):
    """What the web server's websocket can do beyond ASGI."""

    on_pong: Callable[[], None] | None

    def ping(self) -> None:
        """Send a protocol-level ping."""
        ...

    def abort(self) -> None:
        """Drop the connection with everything that has not been sent."""
        ...


async def serve_page(websocket: WebSocket, page: ChatPage, wire: Wire | None) -> None:
    """Serve an accepted socket to its end. Never raises for what a peer does."""
    life = _Life()
    if wire is not None:
        wire.on_pong = life.heard
    try:
        async with asyncio.TaskGroup() as tasks:
            others = [
                tasks.create_task(_write(websocket, page, wire), name="page writer"),
                tasks.create_task(_watch(page, wire, life), name="page watch"),
            ]
            await _read(websocket, page, life)
            for task in others:
                task.cancel()
    except* Exception:
        # The root of a socket's tasks: a fault ends this page and no other.
        log.exception("chat_page_failed")
    finally:
        page.gone(1006)


class _Life:
    """When the page was heard of last."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.at = self._loop.time()

    def heard(self) -> None:
        self.at = self._loop.time()

    def silence(self) -> float:
        return self._loop.time() - self.at


async def _read(websocket: WebSocket, page: ChatPage, life: _Life) -> None:
    """Until the socket is closed by either side."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            # The web server calls a lost connection 1005, too; only what a peer closed has a reason, be it empty.
            page.gone(int(message.get("code") or 1005) if "reason" in message else 1006)
            return
        life.heard()
        page.receive(message.get("text") or "", life.at)


async def _write(websocket: WebSocket, page: ChatPage, wire: Wire | None) -> None:
    """Everything that waits, then the closing handshake if it is ours."""
    try:
        while (frame := await page.next()) is not None:
            async with asyncio.timeout(SEND_SECONDS):
                await websocket.send_text(frame.decode())
        if page.closure is not None:
            async with asyncio.timeout(CLOSE_SECONDS):
                await websocket.close(page.closure.code, page.closure.reason)
    except (WebSocketDisconnect, RuntimeError):
        # The page went while we wrote; the reader hears of it, too.
        return
    except TimeoutError:
        log.info("chat_page_cut_off")
        _cut(page, wire)


async def _watch(page: ChatPage, wire: Wire | None, life: _Life) -> None:
    """Ask for signs of life; in the end give closing its time, then no more."""
    while not page.closing.is_set():
        try:
            async with asyncio.timeout(PING_SECONDS):
                await page.closing.wait()
        except TimeoutError:
            if wire is not None and life.silence() >= STALE_SECONDS:
                log.info("chat_page_silent")
                _cut(page, wire)
                return
            if wire is not None:
                wire.ping()
    await asyncio.sleep(SEND_SECONDS + CLOSE_SECONDS)
    _cut(page, wire)


def _cut(page: ChatPage, wire: Wire | None) -> None:
    page.gone(1006)
    if wire is not None:
        wire.abort()
