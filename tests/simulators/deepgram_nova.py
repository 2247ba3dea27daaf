"""Deepgram Nova on loopback: the real wire, strict on what it is sent, on a clock made of received audio.

What is "said" comes from a script, not from the audio. A line without `at_ms` begins when the audio gets loud, so a
caller who speaks line k of a conversation is transcribed as line k. A line with `at_ms` is heard at that time of the
connection's audio, whatever it sounds like.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Iterable

from websockets.asyncio.server import ServerConnection

from tests.simulators.deepgram_door import AudioFrames, Connection, DeepgramDoor, Fault, Query, bad_value
from tests.simulators.deepgram_nova_engine import Asked, Closing, Line, NovaEngine, NovaPace
from tests.simulators.deepgram_sound import Script, loudness

__all__ = ["Closing", "Fault", "Line", "NovaPace", "NovaSimulator"]

PATIENCE_S = 10.0
"""Without audio or a KeepAlive for so long, the connection is closed (NET-0001)."""

_BOOLEANS = (
    *("interim_results", "smart_format", "punctuate", "profanity_filter", "vad_events", "numerals", "dictation"),
    *("multichannel", "mip_opt_out", "diarize"),
)
_LANGUAGES = frozenset(
    (  # noqa: SIM905 - as a list it would fill a page
        "multi be bg bn bs ca cs da da-DK de de-CH el en en-AU en-GB en-IN en-NZ en-US es es-419 et fi fr fr-CA hi hr "
        "hu id it ja kn ko ko-KR lt lv mk mr ms nl nl-BE no pl pt pt-BR pt-PT ro ru sk sl sr sv sv-SE ta te th th-TH "
        "tl tr uk vi zh zh-CN zh-HK zh-Hans zh-Hant zh-TW"
    ).split()
)
_KNOWN = {name: frozenset({"true", "false"}) for name in _BOOLEANS} | {
    "language": _LANGUAGES,
    "encoding": frozenset({"linear16", "mulaw"}),
    "sample_rate": frozenset({"8000", "16000", "24000", "44100", "48000"}),
    "channels": frozenset({"1"}),
    "diarize_model": frozenset({"latest", "v1"}),
}
_FREE = frozenset({"model", "endpointing", "utterance_end_ms", "version", "callback", "callback_method"})
_REPEATABLE = frozenset({"keyterm", "keywords", "language_hint", "redact", "replace", "search", "tag", "extra"})
_MODELS = ("nova-3", "nova-2", "nova", "enhanced", "base")
_BROKEN = {"type": "Error", "variant": "InternalError", "description": "scripted", "message": "scripted"}


class NovaSimulator(DeepgramDoor):
    """See the module and `DeepgramDoor`.

    The script goes on where the last connection left it, as a caller does; with `rewind=True` each connection gets all
    of it. With `answers_finalize=False` a Finalize is obeyed in silence: the words stay interim.
    """

    path = "/v1/listen"

    def __init__(
        self,
        script: Iterable[Line] = (),
        *,
        key: str = "dg-test-key",
        faults: Iterable[Fault] = (),
        pace: NovaPace | None = None,
        rewind: bool = False,
        answers_finalize: bool = True,
    ) -> None:
        super().__init__(key, faults)
        self._lines = tuple(script)
        self._script = Script(self._lines)
        self._rewind = rewind
        self._pace = pace or NovaPace()
        self.answers_finalize = answers_finalize

    def problem(self, query: Query) -> str | None:
        return query_problem(query)

    def stream(self, socket: ServerConnection, record: Connection, fault: Fault) -> Awaitable[None]:
        if self._rewind:
            self._script = Script(self._lines)
        return _Stream(self, socket, record, fault).run()

    def engine(self, query: Query, metadata: dict[str, object]) -> NovaEngine:
        return NovaEngine(self._script, self._pace, _asked(query), metadata)


class _Stream:
    """One connection being served."""

    def __init__(self, sim: NovaSimulator, socket: ServerConnection, record: Connection, fault: Fault) -> None:
        self._sim = sim
        self._socket = socket
        self._record = record
        self._request_id = str(uuid.uuid4())
        model = record.query["model"][0]
        info = {"name": f"general-{model}", "version": "2025-04-17.21547", "arch": model}
        metadata: dict[str, object] = {"request_id": self._request_id, "model_uuid": str(uuid.uuid4())}
        self._engine = sim.engine(record.query, metadata | {"model_info": info})
        self._frames = AudioFrames(socket, record, fault)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        alive_until = loop.time() + PATIENCE_S
        going_on = True
        while going_on:
            try:
                async with asyncio.timeout_at(alive_until):
                    message = await self._socket.recv()
            except TimeoutError:
                await self._turn_away(1011, "NET-0001: no audio or KeepAlive in time")
                return
            if isinstance(message, bytes):
                going_on = await self._hear(message)
                alive_until = loop.time() + PATIENCE_S
            else:
                going_on = await self._obey(message)
                if self._record.audio:
                    # Before the first audio, asking for patience gets none.
                    alive_until = loop.time() + PATIENCE_S

    async def _hear(self, audio: bytes) -> bool:
        """False when the connection is over."""
        if not audio:
            return await self._turn_away(1008, "zero-length audio ends a stream")
        if audio.startswith(b'{"'):
            return await self._turn_away(1008, "DATA-0000: a control message in a binary frame is no audio")
        for frame in self._frames.take(audio):
            if not await self._frames.misbehave(_BROKEN):
                return False
            if not self._frames.stalled:
                for message in self._engine.hear(loudness(frame, mulaw=self._frames.mulaw)):
                    await self._tell(message)
        return True

    async def _obey(self, text: str) -> bool:
        message: dict[str, object] = json.loads(text)
        self._record.messages.append(message)
        match message.get("type"):
            case "KeepAlive":
                pass
            case "Finalize":
                if self._sim.answers_finalize and not self._frames.stalled:
                    for told in self._engine.finalize():
                        await self._tell(told)
            case "CloseStream":
                for told in self._engine.flush():
                    await self._tell(told)
                await self._tell(self._summary())
                await self._socket.close(1000)
                return False
            case kind:
                await self._tell({"type": "Error", "variant": "SchemaError", "description": f"unknown {kind}"})
                return await self._turn_away(1008, "SchemaError")
        return True

    async def _turn_away(self, code: int, why: str) -> bool:
        self._sim.refused.append(f"{code} {why}")
        await self._socket.close(code, why)
        return False

    async def _tell(self, message: dict[str, object]) -> None:
        self._record.told.append(message)
        await self._socket.send(json.dumps(message))

    def _summary(self) -> dict[str, object]:
        return {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self._request_id,
            "sha256": "0" * 64,
            "created": "2026-01-01T00:00:00.000Z",
            "duration": self._frames.heard_ms / 1000,
            "channels": 1,
        }


def _asked(query: Query) -> Asked:
    def on(name: str) -> bool:
        return query.get(name) == ["true"]

    endpointing = query.get("endpointing", ["10"])[0]
    utterance_end = query.get("utterance_end_ms")
    return Asked(
        interim=on("interim_results"),
        endpointing=None if endpointing == "false" else int(endpointing),
        utterance_end=int(utterance_end[0]) if utterance_end else None,
        vad_events=on("vad_events"),
        formatted=on("smart_format") or on("punctuate"),
        multilingual=query.get("language") == ["multi"],
    )


def query_problem(query: Query) -> str | None:
    """Why Deepgram would answer 400, or None."""
    return bad_value(query, _KNOWN, _FREE, _REPEATABLE) or _missing(query) or _out_of_range(query) or _unfit(query)


def _missing(query: Query) -> str | None:
    for name in ("model", "encoding", "sample_rate"):
        if name not in query:
            return f"{name} is required for raw audio"
    return None


def _out_of_range(query: Query) -> str | None:
    endpointing = query.get("endpointing", ["10"])[0]
    if endpointing != "false" and not endpointing.isdecimal():
        return "endpointing is no number of ms"
    utterance_end = query.get("utterance_end_ms", ["1000"])[0]
    if not utterance_end.isdecimal() or int(utterance_end) < 1000:
        return "utterance_end_ms is below 1000"
    return None


def _unfit(query: Query) -> str | None:
    model = query["model"][0]
    if not any(model == known or model.startswith(f"{known}-") for known in _MODELS):
        return "no such model"
    if "utterance_end_ms" in query and query.get("interim_results") != ["true"]:
        return "utterance_end_ms needs interim_results"
    if model.startswith("nova-3"):
        return "keywords are not for nova-3: use keyterm" if "keywords" in query else None
    if "keyterm" in query:
        return "keyterm is for nova-3 only"
    for keyword in query.get("keywords", []):
        _, weighted, weight = keyword.partition(":")
        if weighted and not weight.lstrip("-").replace(".", "", 1).isdecimal():
            return "bad weight of a keyword"
    return None
