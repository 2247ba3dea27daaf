"""Engines that cost next to nothing, so that what is measured is the gateway. Only the voice detector is the real one.

The recogniser hears speech where the level is above `SPEECH_RMS`, and notes the moment of the last thing that the
gateway had to wait for: the end of turn (native turns), or the final words (turns found by the gateway).
"""

from __future__ import annotations

import array
import asyncio
import audioop
import math
import time
from collections.abc import AsyncIterator, Mapping

from benchmarks.phone_sound import SENTENCE
from pipelines.audio import ulaw
from pipelines.listening.ears import OpenVoiceActivity
from providers.base import (
    MULAW_8K,
    AudioFormat,
    Generation,
    LlmEvent,
    NativeTurn,
    SpeechChunk,
    SttEvent,
    TextDelta,
    TimedWord,
    Transcript,
    TurnMoment,
)
from providers.local.vad import SileroVad
from wire.config import FluxStt, SttConfig, VoiceConfig

SPEECH_RMS = 500
QUIET_BYTES = 1600
"""200 ms without speech end the caller's turn."""
WORD_MS = 400
_EVENTS = 64

Decision = tuple[int, float]
"""Number of the call, in the order in which calls began, and the moment (seconds of the machine's monotonic clock)."""


class Hearing:
    """A recogniser of one call (`providers.base.SpeechToText`)."""

    input = MULAW_8K

    def __init__(self, call: int, decisions: list[Decision], *, native: bool) -> None:
        self.native_turns = native
        self._call = call
        self._decisions = decisions
        self._events: asyncio.Queue[SttEvent] = asyncio.Queue(_EVENTS)
        self._speaking = False
        self._quiet = 0
        self._turns = 0

    async def start(self) -> None:
        """Nothing to connect to."""

    def feed(self, audio: bytes) -> None:
        if audioop.rms(audioop.ulaw2lin(audio, 2), 2) > SPEECH_RMS:
            if self.native_turns and not self._speaking:
                self._events.put_nowait(NativeTurn(TurnMoment.START, "", self._turns))
            self._speaking = True
            self._quiet = 0
        elif self._speaking:
            self._quiet += len(audio)
            if self.native_turns and self._quiet >= QUIET_BYTES:
                self._decide(NativeTurn(TurnMoment.END, SENTENCE, self._turns, probability=0.9))

    def finalize(self) -> None:
        if self._speaking and not self.native_turns:
            self._decide(Transcript(SENTENCE, is_final=True, speech_final=True))

    async def events(self) -> AsyncIterator[SttEvent]:
        while True:
            yield await self._events.get()

    async def aclose(self) -> None:
        """Nothing to release."""

    def _decide(self, event: SttEvent) -> None:
        self._speaking = False
        self._quiet = 0
        self._turns += 1
        self._decisions.append((self._call, time.monotonic()))
        self._events.put_nowait(event)


class Finished:
    """Believes that every silence ends a turn (`providers.base.EndOfTurnModel`)."""

    async def probability(self, pcm: bytes, rate: int) -> float:
        return 1.0


class Answering:
    """Answers everything at once with the same words (`providers.base.LanguageModel`)."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    async def generate(self, generation: Generation) -> AsyncIterator[LlmEvent]:
        yield TextDelta(self._answer)

    async def warm(self) -> None:
        """Always warm."""

    async def aclose(self) -> None:
        """Nothing to release."""


class Humming:
    """The speech of one utterance: a tone of `WORD_MS` for each word, all of it at once."""

    def __init__(self, tone: bytes) -> None:
        self._tone = tone
        self._words = 0
        self._chunks: asyncio.Queue[SpeechChunk | None] = asyncio.Queue(_EVENTS)

    async def push(self, text: str) -> None:
        words = text.split()
        at = self._words * WORD_MS
        timed = tuple(
            TimedWord(word, at + index * WORD_MS, at + (index + 1) * WORD_MS) for index, word in enumerate(words)
        )
        self._words += len(words)
        await self._chunks.put(SpeechChunk(self._tone * len(words), timed))

    async def finish(self) -> None:
        await self._chunks.put(None)

    async def chunks(self) -> AsyncIterator[SpeechChunk]:
        while (chunk := await self._chunks.get()) is not None:
            yield chunk

    async def cancel(self) -> None:
        """Nothing to stop."""


class Voice:
    """A voice of one call (`providers.base.TextToSpeech`)."""

    output = MULAW_8K

    def __init__(self, tone: bytes) -> None:
        self._tone = tone

    async def warm(self) -> None:
        """Always warm."""

    def open(self) -> Humming:
        return Humming(self._tone)

    async def aclose(self) -> None:
        """Nothing to release."""


class BenchEngines:
    """`server.engines.CallEngines` for the benchmark. `answer` is what the model always says."""

    def __init__(self, answer: str) -> None:
        self.decisions: list[Decision] = []
        self.turn_model = Finished()
        self._silero = SileroVad()
        self._tone = ulaw.encode(_sine(WORD_MS))
        self._model = Answering(answer)
        self._calls = 0

    @property
    def vad(self) -> OpenVoiceActivity:
        return self._silero.stream

    def stt(self, config: SttConfig, line: AudioFormat) -> Hearing:
        self._calls += 1
        return Hearing(self._calls - 1, self.decisions, native=isinstance(config, FluxStt))

    def voice(self, config: VoiceConfig, line: AudioFormat) -> Voice:
        return Voice(self._tone)

    def model(self, provider: str) -> Answering:
        return self._model

    def with_keys(self, keys: Mapping[str, str]) -> BenchEngines:
        return self

    async def aclose(self) -> None:
        await self._silero.aclose()


def _sine(ms: int) -> bytes:
    return array.array("h", (round(4000 * math.sin(math.tau * 400 * at / 8000)) for at in range(8 * ms))).tobytes()
