"""Deepgram Flux on loopback: the real wire, strict on what it is sent, on a clock made of received audio.

What is "said" comes from a script, not from the audio. A turn without `at_ms` begins when the audio gets loud and ends
when it has been quiet long enough, so a caller who speaks line k of a conversation makes turn k happen. A turn with
`at_ms` happens at that time of the connection's audio, whatever it sounds like.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.simulators.deepgram_flux_engine import FRAME_MS, Ending, FluxEngine, Pace, Say, Script, loudness

__all__ = ["Ending", "Fault", "FluxConnection", "FluxSimulator", "Pace", "Say"]

_KNOWN = {
    "model": {"flux-general-en", "flux-general-multi"},
    "encoding": {"linear16", "mulaw"},
    "sample_rate": {"8000", "16000", "24000", "44100", "48000"},
    "numerals": {"true", "false"},
    "profanity_filter": {"true", "false"},
    "mip_opt_out": {"true", "false"},
    "redact": {"numbers", "aggressive_numbers"},
}
_RANGES = {"eot_threshold": (0.5, 1.0), "eager_eot_threshold": (0.3, 0.9), "eot_timeout_ms": (500, 60_000)}
_REPEATABLE = {"keyterm", "language_hint", "tag", "redact"}


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
class FluxConnection:
    """What one client asked for and sent, and what it was told."""

    query: dict[str, list[str]]
    headers: dict[str, str]
    audio: bytearray = field(default_factory=bytearray)
    chunks: list[int] = field(default_factory=list[int])
    messages: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    told: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class FluxSimulator:
    """An async context manager; `url` is the websocket origin to configure.

    The script goes on where the last connection left it, as a caller does; with `rewind=True` each connection gets all
    of it. `faults` are for the first connections, in order. `refused` lists what was turned away and why.
    """

    def __init__(
        self,
        script: Iterable[Say] = (),
        *,
        key: str = "dg-test-key",
        faults: Iterable[Fault] = (),
        pace: Pace | None = None,
        rewind: bool = False,
    ) -> None:
        self.key = key
        self.connections: list[FluxConnection] = []
        self.attempts = 0
        self.refused: list[str] = []
        self._says = tuple(script)
        self._script = Script(self._says)
        self._rewind = rewind
        self._pace = pace or Pace()
        self._faults = deque(faults)
        self._fault_of: dict[ServerConnection, Fault] = {}
        self._stack = AsyncExitStack()
        self._port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    async def __aenter__(self) -> FluxSimulator:
        server = await self._stack.enter_async_context(
            serve(self._serve, "127.0.0.1", 0, process_request=self._admit, compression=None, close_timeout=0.2)
        )
        self._port = next(iter(server.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # --- the handshake ---

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
        if url.path != "/v2/listen":
            return self._refuse(connection, 404, f"no such path {url.path}")
        if request.headers.get("Authorization") not in (f"Token {self.key}", f"Bearer {self.key}"):
            return self._refuse(connection, 401, "Invalid credentials.")
        problem = query_problem(parse_qs(url.query, keep_blank_values=True))
        return self._refuse(connection, 400, problem) if problem else None

    def _refuse(self, connection: ServerConnection, status: int, why: str) -> Response:
        self.refused.append(f"{status} {why}")
        return connection.respond(status, json.dumps({"err_code": "REFUSED", "err_msg": why}))

    # --- the stream ---

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        query = parse_qs(urlsplit(socket.request.path).query)
        record = FluxConnection(query, dict(socket.request.headers.raw_items()))
        self.connections.append(record)
        stream = _Stream(socket, record, self._engine(query), self._fault_of.pop(socket))
        try:
            await stream.run()
        except ConnectionClosed:
            pass
        finally:
            record.closed.set()

    def _engine(self, query: dict[str, list[str]]) -> FluxEngine:
        if self._rewind:
            self._script = Script(self._says)
        return FluxEngine(
            self._script,
            self._pace,
            eager="eager_eot_threshold" in query,
            eot_timeout_ms=int(query.get("eot_timeout_ms", ["5000"])[0]),
            multilingual=query["model"] == ["flux-general-multi"],
        )


class _Stream:
    """One connection being served."""

    def __init__(self, socket: ServerConnection, record: FluxConnection, engine: FluxEngine, fault: Fault) -> None:
        self._socket = socket
        self._record = record
        self._engine = engine
        self._fault = fault
        self._request_id = str(uuid.uuid4())
        self._sequence = 0
        self._heard_ms = 0
        rate = int(record.query["sample_rate"][0])
        self._mulaw = record.query["encoding"] == ["mulaw"]
        self._frame = rate * FRAME_MS // 1000 * (1 if self._mulaw else 2)
        self._pending = bytearray()

    async def run(self) -> None:
        if not self._fault.never_connected:
            await self._tell({"type": "Connected"})
        async for message in self._socket:
            if isinstance(message, bytes):
                if not await self._hear(message):
                    return
            elif not await self._obey(message):
                return

    async def _hear(self, audio: bytes) -> bool:
        self._record.audio += audio
        self._record.chunks.append(len(audio))
        self._pending += audio
        while len(self._pending) >= self._frame:
            frame = bytes(self._pending[: self._frame])
            del self._pending[: self._frame]
            self._heard_ms += FRAME_MS
            if not await self._misbehave():
                return False
            if not _due(self._fault.stall_at_ms, self._heard_ms):
                for message in self._engine.hear(loudness(frame, mulaw=self._mulaw)):
                    await self._tell(message)
        return True

    async def _misbehave(self) -> bool:
        """False when the fault has ended the connection."""
        if self._fault.garbage_at_ms == self._heard_ms:
            await self._socket.send('{"type":"TurnInfo","event":')
        if self._fault.freeze_at_ms == self._heard_ms:
            await asyncio.sleep(20)
        if _due(self._fault.error_at_ms, self._heard_ms):
            await self._tell({"type": "Error", "code": "INTERNAL_SERVER_ERROR", "description": "scripted"})
            return False
        if _due(self._fault.drop_at_ms, self._heard_ms):
            self._socket.transport.abort()
            return False
        return True

    async def _obey(self, text: str) -> bool:
        """False when the message ends the connection."""
        message: dict[str, object] = json.loads(text)
        self._record.messages.append(message)
        match message.get("type"):
            case "ForceEndTurn":
                for told in self._engine.force_end():
                    await self._tell(told)
            case "Configure":
                await self._tell(self._engine.configure(message))
            case "CloseStream":
                for told in self._engine.flush():
                    await self._tell(told)
                await self._close_without_code()
                return False
            case _:
                await self._socket.close(1008, "unknown message type")
                return False
        return True

    async def _tell(self, message: dict[str, object]) -> None:
        whole = {"type": message["type"], "request_id": self._request_id, "sequence_id": self._sequence, **message}
        self._sequence += 1
        self._record.told.append(whole)
        await self._socket.send(json.dumps(whole))

    async def _close_without_code(self) -> None:
        """A close frame with an empty body, which a client sees as 1005; the library's `close` always gives a code."""
        async with self._socket.send_context():
            self._socket.protocol.send_close()


def _due(at_ms: int | None, now_ms: int) -> bool:
    return at_ms is not None and now_ms >= at_ms


def query_problem(query: dict[str, list[str]]) -> str | None:
    """Why Deepgram would answer 400, or None."""
    known = _KNOWN.keys() | _RANGES.keys() | _REPEATABLE
    for name, values in query.items():
        if name not in known:
            return f"unknown parameter {name}"
        if len(values) > 1 and name not in _REPEATABLE:
            return f"{name} given {len(values)} times"
        if name in _KNOWN and not set(values) <= _KNOWN[name]:
            return f"bad value of {name}"
        if name in _REPEATABLE and not all(values):
            return f"empty {name}"
    return _missing(query) or _out_of_range(query)


def _missing(query: dict[str, list[str]]) -> str | None:
    for name in ("model", "encoding", "sample_rate"):
        if name not in query:
            return f"{name} is required for raw audio"
    if "language_hint" in query and query["model"] != ["flux-general-multi"]:
        return "language_hint needs flux-general-multi"
    return None


def _out_of_range(query: dict[str, list[str]]) -> str | None:
    for name, (low, high) in _RANGES.items():
        try:
            if name in query and not low <= float(query[name][0]) <= high:
                return f"{name} out of range"
        except ValueError:
            return f"{name} is not a number"
    if float(query.get("eager_eot_threshold", ["0"])[0]) > float(query.get("eot_threshold", ["0.7"])[0]):
        return "eager_eot_threshold must be <= eot_threshold"
    return None
