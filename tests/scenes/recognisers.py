"""Recognisers that know a scene's words and when they sound, and are no faster than real ones.

They hear by audio time alone: a word is known some time after it was spoken. What they make of it comes in the shapes
of the two families: segments of words (Nova, Gladia …) and whole turns (Flux).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from providers.base import MULAW_8K, NativeTurn, SttEvent, Transcript, TurnMoment
from tests.scenes.line import StageLine, Word
from tests.scenes.sounds import RATE


def _samples(ms: int) -> int:
    return ms * RATE // 1000


KNOWN_AFTER = _samples(150)
"""From the end of a word to the words that contain it."""
FINAL_AFTER = _samples(100)
"""From `finalize` to the final words."""
ENDPOINT = _samples(1000)
"""Quiet after which the words are final unasked."""


class _Scripted:
    """What both have in common."""

    input = MULAW_8K
    native_turns = False

    def __init__(self, line: StageLine) -> None:
        self._line = line
        self._now = 0
        self._news: asyncio.Queue[SttEvent | None] = asyncio.Queue()

    async def start(self) -> None:
        """They are there at once."""

    def feed(self, audio: bytes) -> None:
        self._now += len(audio)
        self._hear()

    def finalize(self) -> None:
        """Only where there are segments."""

    async def events(self) -> AsyncIterator[SttEvent]:
        while (event := await self._news.get()) is not None:
            yield event

    async def aclose(self) -> None:
        self._news.put_nowait(None)

    def _hear(self) -> None:
        raise NotImplementedError


class ScriptedSegments(_Scripted):
    """Words that become final when asked for, or after a second of quiet."""

    def __init__(self, line: StageLine) -> None:
        super().__init__(line)
        self._segment_from = 0
        self._told = ""
        self._asked: int | None = None

    def finalize(self) -> None:
        if self._asked is None:
            self._asked = self._now

    def _hear(self) -> None:
        words = [word for word in self._line.heard_words() if word.end > self._segment_from]
        known = [word for word in words if word.end + KNOWN_AFTER <= self._now]
        if self._asked is not None and self._now >= self._asked + FINAL_AFTER:
            asked, self._asked = self._asked, None
            self._final([word for word in words if word.end <= asked], asked)
        elif known and self._now >= known[-1].end + ENDPOINT:
            self._final(known, known[-1].end)
        elif _text(known) != self._told:
            self._told = _text(known)
            self._news.put_nowait(Transcript(self._told, is_final=False))

    def _final(self, words: list[Word], until: int) -> None:
        self._segment_from, self._told = until, ""
        self._news.put_nowait(Transcript(_text(words), is_final=True))


EAGER_AFTER = _samples(250)
END_AFTER = _samples(500)
TIMEOUT = _samples(1000)
UPDATE_EVERY = _samples(240)


class ScriptedTurns(_Scripted):
    """Whole turns. Where the caller has nothing to add the turn is over soon, otherwise after a second of quiet."""

    native_turns = True

    def __init__(self, line: StageLine) -> None:
        super().__init__(line)
        self._turn_from = 0
        self._index = 0
        self._open = False
        self._eager = False
        self._told = ""
        self._told_at = 0

    def _hear(self) -> None:
        words = [word for word in self._line.heard_words() if word.end > self._turn_from]
        if not words:
            return
        known = [word for word in words if word.end + KNOWN_AFTER <= self._now]
        text, last = _text(known), words[-1]
        if not self._open:
            if known:
                self._open, self._eager = True, False
                self._tell(TurnMoment.START, text)
            return
        quiet = self._now - last.end if last.end <= self._now else 0
        if self._eager and len(known) and text != self._told:
            self._eager = False
            self._tell(TurnMoment.RESUMED, text)
        elif (last.finished and quiet >= END_AFTER) or quiet >= TIMEOUT:
            self._tell(TurnMoment.END, text, 0.83)
            self._open, self._turn_from, self._told = False, self._now, ""
            self._index += 1
        elif last.finished and not self._eager and quiet >= EAGER_AFTER:
            self._eager = True
            self._tell(TurnMoment.EAGER_END, text, 0.56)
        elif text != self._told and self._now >= self._told_at + UPDATE_EVERY:
            self._tell(TurnMoment.UPDATE, text)

    def _tell(self, moment: TurnMoment, text: str, probability: float = 0.05) -> None:
        self._told, self._told_at = text, self._now
        self._news.put_nowait(NativeTurn(moment, text, self._index, probability))


def _text(words: list[Word]) -> str:
    return " ".join(word.text for word in words)
