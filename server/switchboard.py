"""One TCP port for everything: media sockets go to picows, the rest to uvicorn.

A media socket carries a hundred frames a second, so it is served by the leanest websocket implementation measured: half
the cost of the same stream under ASGI. Each connection is looked at until its first request head is complete, then
handed over for good, with the bytes already read. Use `switchboard_protocol(...)` as uvicorn's `Config(http=...)`.

uvicorn's shutdown closes connections that are still being looked at, and its own. Media sockets belong to their calls:
it neither closes nor awaits them, so calls may drain in the application's lifespan shutdown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import picows.picows
import structlog
from picows import WSAutoPingStrategy, WSListener, WSUpgradeRequest, WSUpgradeResponseWithListener
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.server import ServerState

log = structlog.get_logger(__name__)

STREAM_PATH = "/twilio/stream"
MAX_HEAD_BYTES = 16 * 1024
HEAD_DEADLINE_S = 10.0

_END_OF_HEAD = b"\r\n\r\n"
_MAX_FRAME_BYTES = 64 * 1024
_READ_BUFFER_BYTES = 8 * 1024
_HANDSHAKE_S = 5.0

# The listeners say themselves what went wrong, once a socket; the library would repeat it line by line.
_media_log = logging.getLogger("picows.switchboard")
_media_log.setLevel(logging.CRITICAL)

# What picows' own server makes for each connection; its stub leaves it out.
_media_protocol = cast(Callable[..., asyncio.BufferedProtocol], vars(picows.picows)["WSProtocol"])

AcceptStream = Callable[[WSUpgradeRequest, str], WSListener | WSUpgradeResponseWithListener | None]
"""Answers a handshake on the media path, given the request and the peer's address (empty for a unix socket): a
listener, a ready answer such as 403, or None for 404."""


@dataclass(frozen=True, slots=True)
class _Rules:
    accept: AcceptStream
    head_s: float


def switchboard_protocol(accept_stream: AcceptStream, *, head_s: float = HEAD_DEADLINE_S) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn. `head_s` is how long a connection may take for its first request head."""

    class BoundSwitchboard(Switchboard):
        rules = _Rules(accept_stream, head_s)

    return BoundSwitchboard


class Switchboard(asyncio.Protocol):
    """A connection of which we do not know yet what it wants."""

    rules: ClassVar[_Rules]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to listen, but not for ever."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._deadline = self._loop.call_later(self.rules.head_s, self._refuse, "head_deadline")

    def data_received(self, data: bytes) -> None:
        """Gather the first request's head; hand over when it is complete."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._head += data
        end = self._head.find(_END_OF_HEAD, 0, MAX_HEAD_BYTES)
        if end < 0:
            if len(self._head) >= MAX_HEAD_BYTES:
                self._refuse("head_too_long")
            return
        self._let_go()
        if _is_for_media(self._head):
            self._to_media(transport)
        else:
            self._to_http(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone before we knew what it wanted."""
        self._let_go()

    def shutdown(self) -> None:
        """uvicorn closes: whoever has not asked anything yet need not ask."""
        if self._transport is not None:
            self._transport.close()

    @property
    def _connections(self) -> set[Any]:
        return self._server_state.connections

    def _let_go(self) -> None:
        self._connections.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, why: str) -> None:
        if self._transport is not None:
            # Browsers open connections that they may never use; only one that began to ask is worth a line.
            level = logging.WARNING if self._head else logging.DEBUG
            log.log(level, "connection_refused", why=why, peer=_peer(self._transport))
            self._transport.abort()

    def _to_http(self, transport: asyncio.Transport) -> None:
        protocol = HttpToolsProtocol(self._config, self._server_state, self._app_state, self._loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(bytes(self._head))

    def _to_media(self, transport: asyncio.Transport) -> None:
        protocol = self._protocol_for(_peer(transport))
        # The media protocol reads into its own buffer. Loops choose the way of reading when reading starts, so stop it
        # while the protocol changes.
        transport.pause_reading()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()
        unread = memoryview(self._head)
        while unread and not transport.is_closing():
            room = cast(memoryview, protocol.get_buffer(len(unread)))
            size = min(len(room), len(unread))
            room[:size] = unread[:size]
            unread = unread[size:]
            protocol.buffer_updated(size)

    def _protocol_for(self, peer: str) -> asyncio.BufferedProtocol:
        def listener(request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener | None:
            # Proxies may add options to this header, picows wants it bare.
            options = request.headers.get("Connection", "").lower().split(",")
            if "upgrade" in (option.strip() for option in options):
                request.headers["Connection"] = "upgrade"
            return self.rules.accept(request, peer)

        return _media_protocol(
            None,  # host and port: for clients
            None,  # path: for clients
            False,  # client side
            listener,
            _media_log,
            True,  # disconnect when the listener raises
            _HANDSHAKE_S,
            False,  # automatic pings: a media stream is never quiet, its listener watches it
            10,
            10,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            True,  # automatic pongs
            _MAX_FRAME_BYTES,
            None,  # extra headers: for clients
            _READ_BUFFER_BYTES,
        )


def _is_for_media(head: bytearray) -> bool:
    method, _, rest = bytes(head.split(b"\r\n", 1)[0]).partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    return method == b"GET" and path == STREAM_PATH.encode()


def _peer(transport: asyncio.Transport) -> str:
    address = get_remote_addr(transport)
    return address[0] if address else ""
