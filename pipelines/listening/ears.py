"""The call's hearing: the line's audio to a recogniser and a voice detector, and what they say to the turn machine.

One object a call. Audio comes in by callback and never waits; words and verdicts come in by tasks of the call. All
outputs leave through one function, in order: events and directives of `pipelines.listening.turn`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from pipelines.audio.convert import Converter
from pipelines.audio.levels import FLOOR_DB, energy_db
from pipelines.clock import Clock
from pipelines.listening.detected import DetectedTurns
from pipelines.listening.directives import AskFinal, AskModel, Output
from pipelines.listening.echo import Echo, Monitored
from pipelines.listening.echo_words import EchoWords
from pipelines.listening.native import NativeTurns
from pipelines.medium import Medium
from pipelines.metering import UserSound
from providers.base import (
    AudioFormat,
    Encoding,
    EndOfTurnModel,
    NativeTurn,
    SpeechToText,
    SttEvent,
    SttReconnected,
    Transcript,
    TurnMoment,
    VadFrame,
    VoiceActivity,
)
from providers.errors import ProviderError

log = structlog.get_logger(__name__)

TURN_AUDIO_SECONDS = 8
"""What the end-of-turn model looks at."""
BEFORE_TURN_MS = 200
"""Audio before the first voice that it gets, too: onsets are soft. Earlier turns would only confuse it."""
GAP_SECONDS = 0.3
"""A line that is silent on the wire for this long is filled with silence: recognisers need time to pass."""
WITHOUT_MODEL_SECONDS = 0.45
"""Added to `min_silence_ms` when the model cannot judge: 0.8 s of silence end the turn (behaviour §6.2)."""
RESTART_DELAYS = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between attempts to get a lost recogniser back. The call goes on meanwhile."""

VAD_FRAME_MS = 32

OpenVoiceActivity = Callable[[int, Callable[[VadFrame], None]], VoiceActivity]
"""`(rate, on_frame)` to a stream of the shared voice detector."""


class EarsListener(Protocol):
    """What the ears tell the call."""

    def on_heard(self, outputs: list[Output]) -> None:
        """Events and directives, in order."""
        ...

    def on_ears_trouble(self, error: ProviderError) -> None:
        """The recogniser failed; the ears keep trying where that can help."""
        ...


@dataclass(frozen=True, slots=True)
class EarsParts:
    """What the ears are made of. `model` only where turns are found by us.

    Given again in mid-call (`Ears.change`), `turns` may be of the other family, over the same machine.
    """

    line: AudioFormat
    open_stt: Callable[[], SpeechToText]
    turns: DetectedTurns | NativeTurns
    vad: OpenVoiceActivity | None = None
    model: EndOfTurnModel | None = None


@dataclass(slots=True)
class _Level:
    """Loudness bookkeeping of the line."""

    now_ms: float = 0.0
    last_audio: float = 0.0
    ring: bytearray = field(default_factory=bytearray)


class Ears:
    """Hears one call."""

    def __init__(self, parts: EarsParts, clock: Clock, listener: EarsListener) -> None:
        self._clock = clock
        self._listener = listener
        self._line = parts.line
        self._pcm_of_line = Converter(parts.line, AudioFormat(Encoding.PCM16, parts.line.rate))
        self._level = _Level(last_audio=clock.now())
        self._silence = (b"\xff" if parts.line.encoding is Encoding.MULAW else b"\0\0") * (parts.line.rate // 50)
        self._echo = Echo(parts.line.rate)
        self._echo_words = EchoWords()
        self._vad: VoiceActivity | None = None
        self._vad_began_ms = 0
        self._sound: UserSound | None = None
        self._next_parts: EarsParts | None = None
        self._retired: list[SpeechToText] = []
        self._use(parts)
        self._tasks: asyncio.TaskGroup | None = None
        self._closed: list[str] | None = None
        """Final words said to deaf ears; None while the ears are open."""
        self._closed_interim = ""

    @property
    def now_ms(self) -> int:
        """Audio time of the line: ms since its audio began."""
        return int(self._level.now_ms)

    def monitored(self, medium: Medium) -> Medium:
        """The bot's way to the caller: these ears must know what they may hear again."""
        return Monitored(medium, self._echo, lambda: self.now_ms)

    # --- other ears in mid-call ---

    def change(self, parts: EarsParts) -> None:
        """Hear with another recogniser, or find turns otherwise, from the next moment that nobody is being listened
        to. Nothing said is lost: the new recogniser gets all audio from that moment on."""
        self._next_parts = parts
        self._change_if_quiet()

    def _change_if_quiet(self) -> None:
        if self._next_parts is None or self._turns.machine.user_has_floor or self._turns.machine.overlapping:
            return
        old, changed = self._stt, self._changed
        if self._vad is not None:
            self._vad.close()
            self._vad = None
        self._use(self._next_parts)
        self._next_parts = None
        changed.set()
        self._retired.append(old)
        if self._tasks is not None:
            # Closing it is what ends its events, which `run` waits for.
            self._tasks.create_task(self._retire(old), name="old recogniser")

    async def _retire(self, old: SpeechToText) -> None:
        await old.aclose()
        self._retired.remove(old)

    def _use(self, parts: EarsParts) -> None:
        self._parts = parts
        self._turns = parts.turns
        if isinstance(parts.turns, DetectedTurns):
            parts.turns.begin(self.now_ms)
        self._stt = parts.open_stt()
        self._to_stt = Converter(parts.line, self._stt.input)
        self._changed = asyncio.Event()
        self._detect_voice()

    def meter(self, sound: UserSound | None) -> None:
        """Let this one listen in from now on, or nobody."""
        self._sound = sound
        self._detect_voice()

    def _detect_voice(self) -> None:
        """The detector runs where turns are found by it, and while its verdicts are metered."""
        metered = self._sound is not None and self._sound.metered
        if not metered and not isinstance(self._turns, DetectedTurns):
            if self._vad is not None:
                self._vad.close()
                self._vad = None
        elif self._vad is None and self._parts.vad is not None:
            self._vad_began_ms = self.now_ms
            self._vad = self._parts.vad(self._line.rate, self._on_vad)

    # --- deaf ears ---

    def close(self) -> None:
        """Hear, but let nothing come of it: text is kept, turns stand still. Idempotent."""
        if self._closed is None:
            self._closed = []
            self._turns.machine.reset()
            self._flush()

    def heard_closed(self) -> str | None:
        """What was said since `close` (or since last asked), words that are not final included."""
        if self._closed is None:
            return None
        words = [*self._closed, self._closed_interim]
        if self._closed_interim:
            # What is being said now was told so far; what follows of it was not.
            self._turns.skip_rest()
            if isinstance(self._turns, DetectedTurns):
                self._stt.finalize()
        self._closed, self._closed_interim = [], ""
        return " ".join(word for word in words if word) or None

    def open(self) -> None:
        """Listen again."""
        self._closed, self._closed_interim = None, ""

    # --- in writing ---

    def read(self, text: str) -> None:
        """The user wrote this: a turn that is over. What they were saying meanwhile is part of it."""
        if self._turns.machine.user_has_floor:
            self._turns.skip_rest()
        self._turns.machine.written(self.now_ms, text)
        self._flush()

    # --- from the line ---

    def hear(self, audio: bytes) -> None:
        """Audio of the caller, in the line's format."""
        self._level.last_audio = self._clock.now()
        self._take(audio)

    def beat(self, now: float) -> None:
        """Called every tick: fills gaps of the line with silence."""
        if now - self._level.last_audio > GAP_SECONDS:
            self._level.last_audio += 0.02
            self._take(self._silence)

    def _take(self, audio: bytes) -> None:
        self._stt.feed(self._to_stt.convert(audio))
        length = self._line.duration_ms(len(audio))
        self._level.now_ms += length
        pcm = self._pcm_of_line.convert(audio)
        if self._sound is not None:
            self._sound.heard(audio)
        self._echo.heard(pcm)
        if isinstance(self._turns, NativeTurns):
            if self._vad is not None:
                self._vad.feed(pcm)
            level = FLOOR_DB if self._echo.explains(self.now_ms, int(length)) else energy_db(pcm)
            self._turns.level(self.now_ms, int(length), level)
            self._flush()
            return
        ring = self._level.ring
        ring += audio
        excess = len(ring) - TURN_AUDIO_SECONDS * self._line.bytes_per_second
        if excess > self._line.bytes_per_second:
            # Trimmed a second at a time: moving 64 kB for every frame would cost more than the frame.
            del ring[:excess]
        if self._vad is not None:
            self._vad.feed(pcm)

    def _on_vad(self, frame: VadFrame) -> None:
        if self._sound is not None:
            self._sound.voice(frame)
        if not isinstance(self._turns, DetectedTurns):
            return
        if self._vad_began_ms:
            frame = replace(frame, end_ms=frame.end_ms + self._vad_began_ms)
        if self._closed is not None:
            self._turns.pass_by(frame)
            return
        if self._echo.explains(frame.end_ms, VAD_FRAME_MS):
            frame = replace(frame, probability=0.0)
        self._turns.hear(frame)
        self._flush()

    # --- from the recogniser ---

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Listen until cancelled. Small jobs (verdicts) run in `tasks`."""
        self._tasks = tasks
        try:
            while True:
                stt, changed = self._stt, self._changed
                await self._listen_until_lost(stt, changed)
                # Refused for good, if it has not changed: the call goes on deaf until it is given another one.
                await changed.wait()
        finally:
            if self._vad is not None:
                self._vad.close()
            for old in list(self._retired):
                await old.aclose()
            await self._stt.aclose()

    async def _listen_until_lost(self, stt: SpeechToText, changed: asyncio.Event) -> None:
        """Hear with this recogniser until it is changed for another or refuses for good; a lost one is replaced."""
        failures = 0
        while not changed.is_set():
            try:
                await self._listen(stt, changed)
            except ProviderError as error:
                if changed.is_set():
                    return
                self._listener.on_ears_trouble(error)
                if not error.retryable:
                    return
            if changed.is_set():
                return
            await stt.aclose()
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), RESTART_DELAYS[min(failures, len(RESTART_DELAYS) - 1)])
            failures += 1
            if not changed.is_set():
                stt = self._stt = self._parts.open_stt()
                if isinstance(self._turns, NativeTurns):
                    self._turns.restart()

    async def _listen(self, stt: SpeechToText, changed: asyncio.Event) -> None:
        await stt.start()
        async for event in stt.events():
            if changed.is_set():
                return
            self._on_stt(event)

    def _on_stt(self, event: SttEvent) -> None:
        if isinstance(event, SttReconnected):
            log.warning("stt_reconnected", replayed_ms=event.replayed_ms)
            return
        alone = self._echo.alone
        if isinstance(event, NativeTurn):
            words = self._echo_words.turn(event, alone=alone)
        else:
            words = self._echo_words.transcript(event, alone=alone)
        if words is None:
            return
        if self._closed is not None:
            self._keep(words, self._closed)
            return
        if isinstance(words, NativeTurn):
            if isinstance(self._turns, NativeTurns):
                self._turns.turn(words)
        elif isinstance(self._turns, DetectedTurns):
            self._turns.transcript(words)
        self._flush()

    def _keep(self, event: Transcript | NativeTurn, kept: list[str]) -> None:
        """Words said to deaf ears."""
        over = event.moment is TurnMoment.END if isinstance(event, NativeTurn) else event.is_final
        if isinstance(event, NativeTurn) and isinstance(self._turns, NativeTurns):
            self._turns.overhear(event)
        if over and event.text:
            kept.append(event.text)
        self._closed_interim = "" if over else event.text

    # --- to the call ---

    def flush(self) -> None:
        """Pass on what followed from something the call told the turn machine."""
        self._flush()

    def _flush(self) -> None:
        outputs = self._turns.take()
        if not outputs:
            if self._next_parts is not None:
                self._change_if_quiet()
            return
        for output in outputs:
            if isinstance(output, AskFinal):
                self._stt.finalize()
            elif isinstance(output, AskModel):
                self._ask_model(output.silence)
        self._listener.on_heard(outputs)

    def _ask_model(self, silence: int) -> None:
        assert self._tasks is not None
        spoken_ms = self.now_ms - self._turns.machine.turn_started_ms + BEFORE_TURN_MS
        wanted_ms = min(spoken_ms, TURN_AUDIO_SECONDS * 1000)
        audio = self._pcm_of_line.convert(bytes(self._level.ring[-wanted_ms * self._line.bytes_per_second // 1000 :]))
        self._tasks.create_task(self._judge(silence, audio), name="end-of-turn verdict")

    async def _judge(self, silence: int, pcm: bytes) -> None:
        turns = self._turns
        assert isinstance(turns, DetectedTurns)
        try:
            if self._parts.model is None:
                raise ProviderError("no end-of-turn model", vendor="local", code="STT_ERROR")
            probability = await self._parts.model.probability(pcm, self._line.rate)
        except ProviderError as error:
            log.warning("turn_model_unavailable", error=str(error))
            await asyncio.sleep(WITHOUT_MODEL_SECONDS)
            probability = 1.0
        turns.verdict(silence, probability)
        if turns is self._turns:
            self._flush()
