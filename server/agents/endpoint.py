"""The `/client` websocket: carries frames between a socket and its `AgentLink`, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame

from server.agents.dispatch import AgentGateway, Slow
from server.agents.link import AgentLink

log = structlog.get_logger(__name__)

_socket_log: Final = logging.getLogger("uvicorn.error.websocket")
_socket_log.setLevel(logging.WARNING)

_WAITING_REGISTRATIONS: Final = 1024
"""Registration commands that may wait; more of them slow the reader of that one socket down."""


class ObservedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's websocket, which also lets the application ping, hear the pong, and cut off a stuck peer.

    Use as uvicorn's `Config(ws=ObservedWebSocket, ws_ping_interval=None)`. ASGI has no words for any of this, so the
    protocol puts itself into the scope's `state` under `socket`.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "socket": self}, _loop)
        # Both log addresses with their queries, where tokens are, and at level debug every frame.
        self.logger = self.conn.logger = _socket_log
        self.conn.debug = False
        self.on_pong: Callable[[], None] | None = None

    def handle_pong(self, event: Frame) -> None:
        """A pong of any kind is a sign of life."""
        if self.on_pong is not None:
            self.on_pong()
        super().handle_pong(event)

    def ping(self) -> None:
        """Send a protocol-level ping."""
        if not self.close_sent and not self.disconnected and not self.transport.is_closing():
            self.conn.send_ping(b"alive?")
            self.transport.write(b"".join(self.conn.data_to_send()))

    def limit(self, size: int) -> None:
        """Read no message of more than `size` bytes; a longer one closes the socket with 1009."""
        self.conn.max_message_size = size

    async def send_pieces(self, pieces: Iterator[bytes]) -> None:
        """Send one text message bit by bit: each is made when the peer has room for it, and others run in between.

        Raises WebSocketDisconnect when the peer is gone.
        """
        piece, send = next(pieces, b""), self.conn.send_text
        while True:
            following = next(pieces, None)
            await self.writable.wait()
            if self.disconnected or self.close_sent or self.transport.is_closing():
                raise WebSocketDisconnect(1006)
            send(piece, fin=following is None)
            self.transport.write(b"".join(self.conn.data_to_send()))
            if following is None:
                return
            piece, send = following, self.conn.send_continuation
            await asyncio.sleep(0)

    def abort(self) -> None:
        """Drop the connection with everything that has not been sent."""
        self.transport.abort()


class _StuckPeer(Exception):
    """The peer neither reads nor closes."""


async def serve_agent(websocket: WebSocket, gateway: AgentGateway) -> None:
    """Serve one agent connection from its handshake to its end. Never raises for what a peer does."""
    await websocket.accept()
    link = gateway.open(websocket.client.host if websocket.client is not None else "")
    observed = observed_socket(websocket)
    if observed is not None:
        observed.on_pong = link.heard
        link.ping_socket = observed.ping
    try:
        await _serve(websocket, link, gateway)
    except* _StuckPeer:
        log.info("agent_link_cut_off", connection=link.connection_id, org=link.org_id)
        if observed is not None:
            observed.abort()
    except* Exception:
        log.exception("agent_link_failed", connection=link.connection_id, org=link.org_id)
    finally:
        link.gone(1006, "")
        await gateway.leave(link)


def observed_socket(websocket: WebSocket) -> ObservedWebSocket | None:
    """The protocol beneath, when it is ours."""
    socket = websocket.scope.get("state", {}).get("socket")
    return socket if isinstance(socket, ObservedWebSocket) else None


async def _serve(websocket: WebSocket, link: AgentLink, gateway: AgentGateway) -> None:
    commands: asyncio.Queue[Slow] = asyncio.Queue(_WAITING_REGISTRATIONS)
    async with asyncio.TaskGroup() as tasks:
        others = [
            tasks.create_task(_write(websocket, link)),
            tasks.create_task(_watch(link, gateway)),
            tasks.create_task(_cut_off(link, gateway.times.close)),
            tasks.create_task(gateway.register(link, commands)),
        ]
        await _read(websocket, link, gateway, commands)
        for task in others:
            task.cancel()


async def _read(websocket: WebSocket, link: AgentLink, gateway: AgentGateway, commands: asyncio.Queue[Slow]) -> None:
    """Until the socket is closed by either side."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            link.gone(int(message.get("code") or 1005), message.get("reason") or "")
            return
        command = gateway.take(link, message.get("text") or message.get("bytes") or "")
        if command is not None:
            await commands.put(command)


async def _write(websocket: WebSocket, link: AgentLink) -> None:
    """Everything in the outbox, then the closing handshake if it is ours."""
    try:
        while (frame := await link.outbox.next()) is not None:
            if isinstance(frame, bytes):
                await websocket.send_text(frame.decode())
            elif (socket := observed_socket(websocket)) is not None:
                await socket.send_pieces(frame.pieces())
            else:
                await websocket.send_text(b"".join(frame.pieces()).decode())
        if link.closure is not None:
            await asyncio.sleep(link.closure.delay)
            await websocket.close(link.closure.code, link.closure.reason)
    except (WebSocketDisconnect, RuntimeError):
        # The peer went while we wrote; the reader hears of it, too.
        return


async def _watch(link: AgentLink, gateway: AgentGateway) -> None:
    """Carry out the link's deadlines."""
    while (due := link.tick()) is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due - gateway.registry.clock.now())):
                await link.closing.wait()


async def _cut_off(link: AgentLink, patience: float) -> None:
    """Give closing its time, then no more: a peer that does not read would keep us for ever."""
    await link.closing.wait()
    await asyncio.sleep(patience + (link.closure.delay if link.closure is not None else 0.0))
    raise _StuckPeer
