"""One socket of the simulated ElevenLabs: contexts, their rules, their speech."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection

from tests.simulators.elevenlabs_voice import Chunk, render

JSON = dict[str, Any]

MAX_CONTEXTS = 5
_FIELDS = {
    "text", "context_id", "contextId", "voice_settings", "generation_config", "flush", "close_context", "close_socket",
    "pronunciation_dictionary_locators", "xi_api_key", "try_trigger_generation",
}  # fmt: skip
_FIRST_ONLY = ("voice_settings", "generation_config", "pronunciation_dictionary_locators")
_RANGES = {"stability": (0, 1), "similarity_boost": (0, 1), "style": (0, 1), "speed": (0.7, 1.2)}
_SCHEDULE = 120


@dataclass(frozen=True)
class Faults:
    """How to misbehave. Times are seconds, counts are audio messages of the connection."""

    handshake_delay: float = 0.0
    handshake_status: int = 101
    retry_after: str | None = None
    stall_after: int | None = None
    """Stay open but send nothing more."""
    drop_after: int | None = None
    """Cut the TCP connection."""
    error: JSON | None = None
    """Answer the first text with this error frame, then close with 1008."""
    close_reason: str | None = None
    """Answer the first text by closing with 1008 and this reason."""
    garbage: bool = False
    """Answer the first text with something that is no JSON."""
    never_final: bool = False
    """Closed contexts never end."""


@dataclass(frozen=True)
class Manner:
    """How the vendor speaks; every choice here has been seen or is announced by the vendor."""

    chunk_ms: int = 420
    message_delay: float = 0.002
    """Seconds between two audio messages: far faster than real time."""
    final_delay: float = 0.05
    absolute_times: bool = False
    """Character times count from the context's beginning instead of the chunk's."""
    alternative_spelling: bool = False
    alignment: bool = True
    odd_cuts: bool = False
    """PCM is cut inside samples."""
    second: float = 1.0
    """How long a second of the inactivity timeout lasts."""


@dataclass
class Connection:
    """What one socket got: its address, and every message in order."""

    voice: str
    query: dict[str, str]
    multi: bool
    messages: list[JSON] = field(default_factory=list[JSON])
    open_contexts: int = 0
    close_code: int | None = None


class _Violation(Exception):
    """The client broke a rule."""


@dataclass
class _Context:
    task: asyncio.Task[None]
    speed: float
    work: asyncio.Queue[Chunk | None]
    clock: asyncio.TimerHandle | None = None
    buffer: str = ""
    closing: bool = False


class Session:
    """Serves one socket until either side ends it."""

    def __init__(self, ws: ServerConnection, record: Connection, manner: Manner, faults: Faults) -> None:
        self._ws, self._record, self._manner, self._faults = ws, record, manner, faults
        self._contexts: dict[str | None, _Context] = {}
        self._sent = 0
        self._half = b""

    async def run(self) -> None:
        """Take messages until the socket ends."""
        try:
            async for frame in self._ws:
                try:
                    await self._take(json.loads(frame))
                except _Violation as broken:
                    await self._refuse({"error": str(broken).split(":")[0], "message": str(broken), "code": 1008})
                    return
        finally:
            tasks = [context.task for context in self._contexts.values()]
            for context in self._contexts.values():
                context.task.cancel()
                if context.clock is not None:
                    context.clock.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _refuse(self, frame: JSON) -> None:
        await self._ws.send(json.dumps(frame))
        await self._ws.close(1008, str(frame["error"]))

    async def _take(self, message: JSON) -> None:
        self._record.messages.append(message)
        if unknown := message.keys() - _FIELDS:
            raise _Violation(f"invalid_fields: {sorted(unknown)}")
        if message.get("close_socket"):
            await self._ws.close()
            return
        name = message.get("context_id", message.get("contextId"))
        if self._record.multi and name is None:
            if message.keys() - {"text"} or message.get("text") != "":
                raise _Violation("invalid_message: no context")
            return
        context = self._contexts.get(name)
        if message.get("close_context"):
            if context is not None:
                self._close(context)
            return
        if context is None:
            # Also for a flush or a keep-alive: naming an unknown context creates it.
            context = self._open(name, message)
        elif any(message.get(option) is not None for option in _FIRST_ONLY):
            raise _Violation("invalid_voice_settings: only in the first message of a context")
        self._rewind(name, context)
        await self._text(context, message)

    def _open(self, name: str | None, message: JSON) -> _Context:
        if len(self._contexts) >= MAX_CONTEXTS:
            raise _Violation("max_active_conversations: Maximum simultaneous contexts exceeded (5).")
        settings: JSON = message.get("voice_settings") or {}
        for option, (low, high) in _RANGES.items():
            if settings.get(option) is not None and not low <= settings[option] <= high:
                raise _Violation(f"invalid_voice_settings: {option}")
        work: asyncio.Queue[Chunk | None] = asyncio.Queue()
        task = asyncio.create_task(self._play(name, work))
        self._contexts[name] = _Context(task, settings.get("speed") or 1.0, work)
        self._record.open_contexts = len(self._contexts)
        return self._contexts[name]

    def _rewind(self, name: str | None, context: _Context) -> None:
        """Restart the inactivity clock."""
        if context.clock is not None:
            context.clock.cancel()
        timeout = int(self._record.query.get("inactivity_timeout", "20")) * self._manner.second
        context.clock = asyncio.get_running_loop().call_later(timeout, self._close, context)

    async def _text(self, context: _Context, message: JSON) -> None:
        text: str = message.get("text") or ""
        if text and not text.endswith(" "):
            raise _Violation("invalid_text: must end with a space")
        if text.strip():
            if self._faults.error is not None:
                await self._refuse(self._faults.error)
            if self._faults.close_reason is not None:
                await self._ws.close(1008, self._faults.close_reason)
            if self._faults.garbage:
                await self._ws.send("<html>")
            context.buffer += text
        ended = message.get("text") == "" and not self._record.multi
        immediate = message.get("flush") or self._record.query.get("auto_mode") == "true" or ended
        if context.buffer and (immediate or len(context.buffer) >= _SCHEDULE):
            output = self._record.query["output_format"]
            for chunk in render(context.buffer, output, context.speed, self._manner.chunk_ms):
                context.work.put_nowait(chunk)
            context.buffer = ""
        if ended:
            self._close(context)

    def _close(self, context: _Context) -> None:
        """What was flushed is still spoken; the rest is forgotten."""
        if not context.closing:
            context.closing = True
            context.buffer = ""
            context.work.put_nowait(None)

    async def _play(self, name: str | None, work: asyncio.Queue[Chunk | None]) -> None:
        spoken_ms = 0
        while (chunk := await work.get()) is not None:
            await asyncio.sleep(self._manner.message_delay)
            await self._misbehave()
            self._sent += 1
            await self._ws.send(json.dumps(self._audio_message(name, chunk, spoken_ms)))
            spoken_ms += chunk.duration_ms
        await asyncio.sleep(self._manner.final_delay)
        if self._faults.never_final:
            await asyncio.Event().wait()
        context = self._contexts.pop(name)
        if context.clock is not None:
            context.clock.cancel()
        self._record.open_contexts = len(self._contexts)
        await self._ws.send(json.dumps({self._spell("isFinal", "is_final"): True, **self._named(name)}))
        if not self._record.multi:
            await self._ws.close()

    async def _misbehave(self) -> None:
        if self._faults.drop_after is not None and self._sent >= self._faults.drop_after:
            self._ws.transport.abort()
        if self._faults.stall_after is not None and self._sent >= self._faults.stall_after:
            await asyncio.Event().wait()

    def _audio_message(self, name: str | None, chunk: Chunk, spoken_ms: int) -> JSON:
        audio = self._half + chunk.audio
        keep = len(audio) - 1 if self._manner.odd_cuts and self._sent % 2 else len(audio)
        audio, self._half = audio[:keep], audio[keep:]
        alignment: JSON | None = None
        if self._manner.alignment:
            alignment = dict(chunk.alignment(spoken_ms if self._manner.absolute_times else 0))
            if self._manner.alternative_spelling:
                alignment["charsStartTimesMs"] = alignment.pop("charStartTimesMs")
                alignment["charsDurationsMs"] = alignment.pop("charDurationsMs")
        return {
            "audio": base64.b64encode(audio).decode(),
            self._spell("isFinal", "is_final"): None,
            "alignment": alignment,
            "normalizedAlignment": alignment,
            **self._named(name),
        }

    def _named(self, name: str | None) -> JSON:
        return {} if name is None else {self._spell("contextId", "context_id"): name}

    def _spell(self, one: str, other: str) -> str:
        return other if self._manner.alternative_spelling else one
