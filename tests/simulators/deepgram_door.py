"""The part of simulated Deepgram that all its streams share: the handshake, its refusals, faults, and frames."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Set
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.simulators.deepgram_sound import FRAME_MS

Query = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Fault:
    """How one connection misbehaves; `…_at_ms` are times of its received audio. `status` refuses the handshake.

    A stalled connection still reads, and says nothing; a frozen one (20 s) does not even read.
    """

    handshake_delay: float = 0.0
    status: int | None = None
    retry_after: int | None = None
    never_connected: bool = False
    error_at_ms: int | None = None
    drop_at_ms: int | None = None
    stall_at_ms: int | None = None
    garbage_at_ms: int | None = None
    freeze_at_ms: int | None = None


@dataclass(slots=True)
class Connection:
    """What one client asked for and sent, and what it was told."""

    query: Query
    headers: dict[str, str]
    audio: bytearray = field(default_factory=bytearray)
    chunks: list[int] = field(default_factory=list[int])
    messages: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    told: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class DeepgramDoor(ABC):
    """An async context manager; `url` is the websocket origin to configure.

    `faults` are for the first connections, in order. `refused` lists what was turned away and why.
    """

    path: str

    def __init__(self, key: str, faults: Iterable[Fault]) -> None:
        self.key = key
        self.connections: list[Connection] = []
        self.attempts = 0
        self.refused: list[str] = []
        self._faults = deque(faults)
        self._fault_of: dict[ServerConnection, Fault] = {}
        self._stack = AsyncExitStack()
        self._port = 0

    @abstractmethod
    def problem(self, query: Query) -> str | None:
        """Why Deepgram would answer 400, or None."""

    @abstractmethod
    def stream(self, socket: ServerConnection, record: Connection, fault: Fault) -> Awaitable[None]:
        """Serve one connection."""

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        server = await self._stack.enter_async_context(
            serve(self._serve, "127.0.0.1", 0, process_request=self._admit, compression=None, close_timeout=0.2)
        )
        self._port = next(iter(server.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.attempts += 1
        fault = self._faults.popleft() if self._faults else Fault()
        self._fault_of[connection] = fault
        await asyncio.sleep(fault.handshake_delay)
        if fault.status is not None:
            response = self._refuse(connection, fault.status, "SCRIPTED")
            if fault.retry_after is not None:
                response.headers["Retry-After"] = str(fault.retry_after)
            return response
        url = urlsplit(request.path)
        if url.path != self.path:
            return self._refuse(connection, 404, f"no such path {url.path}")
        if request.headers.get("Authorization") not in (f"Token {self.key}", f"Bearer {self.key}"):
            return self._refuse(connection, 401, "Invalid credentials.")
        problem = self.problem(parse_qs(url.query, keep_blank_values=True))
        return self._refuse(connection, 400, problem) if problem else None

    def _refuse(self, connection: ServerConnection, status: int, why: str) -> Response:
        self.refused.append(f"{status} {why}")
        return connection.respond(status, json.dumps({"err_code": "REFUSED", "err_msg": why}))

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        query = parse_qs(urlsplit(socket.request.path).query)
        record = Connection(query, dict(socket.request.headers.raw_items()))
        self.connections.append(record)
        try:
            await self.stream(socket, record, self._fault_of.pop(socket))
        except ConnectionClosed:
            pass
        finally:
            record.closed.set()


class AudioFrames:
    """A connection's audio, frame by frame, and the faults that come due with it."""

    def __init__(self, socket: ServerConnection, record: Connection, fault: Fault) -> None:
        self._socket = socket
        self._record = record
        self._fault = fault
        self._pending = bytearray()
        self.heard_ms = 0
        self.mulaw = record.query["encoding"] == ["mulaw"]
        self._frame = int(record.query["sample_rate"][0]) * FRAME_MS // 1000 * (1 if self.mulaw else 2)

    @property
    def stalled(self) -> bool:
        return _due(self._fault.stall_at_ms, self.heard_ms)

    def take(self, audio: bytes) -> Iterator[bytes]:
        self._record.audio += audio
        self._record.chunks.append(len(audio))
        self._pending += audio
        while len(self._pending) >= self._frame:
            frame = bytes(self._pending[: self._frame])
            del self._pending[: self._frame]
            self.heard_ms += FRAME_MS
            yield frame

    async def misbehave(self, error: Mapping[str, object]) -> bool:
        """False when the fault has ended the connection."""
        if self._fault.garbage_at_ms == self.heard_ms:
            await self._socket.send('{"type":"TurnInfo","event":')
        if self._fault.freeze_at_ms == self.heard_ms:
            await asyncio.sleep(20)
        if _due(self._fault.error_at_ms, self.heard_ms):
            await self._socket.send(json.dumps(error))
            return False
        if _due(self._fault.drop_at_ms, self.heard_ms):
            self._socket.transport.abort()
            return False
        return True


def _due(at_ms: int | None, now_ms: int) -> bool:
    return at_ms is not None and now_ms >= at_ms


def bad_value(query: Query, known: Mapping[str, Set[str]], free: Set[str], repeatable: Set[str]) -> str | None:
    """The first parameter that is unknown, repeated, empty, or has a value that is not among the known ones."""
    for name, values in query.items():
        if name not in known.keys() | free | repeatable:
            return f"unknown parameter {name}"
        if len(values) > 1 and name not in repeatable:
            return f"{name} given {len(values)} times"
        if name in known and not set(values) <= known[name]:
            return f"bad value of {name}"
        if name in repeatable and not all(values):
            return f"empty {name}"
    return None
