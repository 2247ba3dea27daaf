"""Deepgram Flux on loopback: the real wire, strict on what it is sent, on a clock made of received audio.

What is "said" comes from a script, not from the audio. A turn without `at_ms` begins when the audio gets loud and ends
when it has been quiet long enough, so a caller who speaks line k of a conversation makes turn k happen. A turn with
`at_ms` happens at that time of the connection's audio, whatever it sounds like.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Iterable

from websockets.asyncio.server import ServerConnection

from tests.simulators.deepgram_door import AudioFrames, Connection, DeepgramDoor, Fault, Query, bad_value
from tests.simulators.deepgram_flux_engine import Ending, FluxEngine, Pace, Say
from tests.simulators.deepgram_sound import Script, loudness

__all__ = ["Ending", "Fault", "FluxSimulator", "Pace", "Say"]

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
_BROKEN = {"type": "Error", "code": "INTERNAL_SERVER_ERROR", "description": "scripted"}
_REPEATABLE = {"keyterm", "language_hint", "tag", "redact"}


class FluxSimulator(DeepgramDoor):
    """See the module and `DeepgramDoor`.

    The script goes on where the last connection left it, as a caller does; with `rewind=True` each connection gets all
    of it.
    """

    path = "/v2/listen"

    def __init__(
        self,
        script: Iterable[Say] = (),
        *,
        key: str = "dg-test-key",
        faults: Iterable[Fault] = (),
        pace: Pace | None = None,
        rewind: bool = False,
    ) -> None:
        super().__init__(key, faults)
        self._says = tuple(script)
        self._script = Script(self._says)
        self._rewind = rewind
        self._pace = pace or Pace()

    def problem(self, query: Query) -> str | None:
        return query_problem(query)

    def stream(self, socket: ServerConnection, record: Connection, fault: Fault) -> Awaitable[None]:
        return _Stream(socket, record, self._engine(record.query), fault).run()

    def _engine(self, query: Query) -> FluxEngine:
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

    def __init__(self, socket: ServerConnection, record: Connection, engine: FluxEngine, fault: Fault) -> None:
        self._socket = socket
        self._record = record
        self._engine = engine
        self._silent = fault.never_connected
        self._frames = AudioFrames(socket, record, fault)
        self._request_id = str(uuid.uuid4())
        self._sequence = 0

    async def run(self) -> None:
        if not self._silent:
            await self._tell({"type": "Connected"})
        async for message in self._socket:
            if isinstance(message, bytes):
                if not await self._hear(message):
                    return
            elif not await self._obey(message):
                return

    async def _hear(self, audio: bytes) -> bool:
        for frame in self._frames.take(audio):
            if not await self._frames.misbehave(_BROKEN):
                return False
            if not self._frames.stalled:
                for message in self._engine.hear(loudness(frame, mulaw=self._frames.mulaw)):
                    await self._tell(message)
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


def query_problem(query: Query) -> str | None:
    """Why Deepgram would answer 400, or None."""
    problem = bad_value(query, _KNOWN, _RANGES.keys(), _REPEATABLE)
    return problem or _missing(query) or _out_of_range(query)


def _missing(query: Query) -> str | None:
    for name in ("model", "encoding", "sample_rate"):
        if name not in query:
            return f"{name} is required for raw audio"
    if "language_hint" in query and query["model"] != ["flux-general-multi"]:
        return "language_hint needs flux-general-multi"
    return None


def _out_of_range(query: Query) -> str | None:
    for name, (low, high) in _RANGES.items():
        try:
            if name in query and not low <= float(query[name][0]) <= high:
                return f"{name} out of range"
        except ValueError:
            return f"{name} is not a number"
    if float(query.get("eager_eot_threshold", ["0"])[0]) > float(query.get("eot_threshold", ["0.7"])[0]):
        return "eager_eot_threshold must be <= eot_threshold"
    return None
