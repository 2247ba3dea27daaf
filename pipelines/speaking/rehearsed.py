"""A voice that has its first words ready before anybody listens: what greets somebody who picks up a telephone.

While it rings, the greeting is synthesised into memory; the first utterance with just that text is played from there.
Whatever else is said, and the greeting if its rehearsal failed, is spoken live.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

import structlog

from pipelines.ids import new_id
from pipelines.speaking.utterance import Origin, Utterance
from providers.base import SpeechChunk, SpeechStream, TextToSpeech
from providers.errors import ProviderError

log = structlog.get_logger(__name__)


class RehearsedVoice:
    """A `TextToSpeech` around another one. `warm` rehearses; the speech waits for the first `open` that asks for it."""

    def __init__(self, voice: TextToSpeech, text: str) -> None:
        """`text` is what will be said first, if it is."""
        self.output = voice.output
        self._voice = voice
        self._text = text
        self._script: tuple[str, ...] = ()
        self._part: _Part | None = None
        self._too_late = False
        """Something was said before anything could be rehearsed, or nothing ever will be."""

    async def warm(self) -> None:
        """Warm the voice, then rehearse; returns when all speech is there. Never raises for what a vendor does."""
        await self._voice.warm()
        if self._script or self._too_late:
            return
        self._script = await _pieces(self._text)
        self._part = part = _Part(self._voice.open())
        await part.learn(self._script)

    def open(self) -> SpeechStream:
        """Begin an utterance."""
        if self._part is not None:
            return _Performance(self)
        self._too_late = True
        return self._voice.open()

    def improvise(self) -> SpeechStream:
        """Speak live."""
        return self._voice.open()

    def rehearsed(self, text: str) -> bool:
        """Whether that text is (the beginning of) what was rehearsed and has not been played yet."""
        return self._part is not None and "".join(self._script).startswith(text)

    def take(self, text: str) -> _Part | None:
        """The speech of exactly that text, once."""
        if self._part is None or "".join(self._script) != text:
            return None
        part, self._part = self._part, None
        return part

    async def aclose(self) -> None:
        """Release everything. Idempotent."""
        self._too_late = True
        part, self._part = self._part, None
        if part is not None:
            await part.cancel()
        await self._voice.aclose()


class _Part:
    """The speech of one text, kept as it comes."""

    def __init__(self, stream: SpeechStream) -> None:
        self._stream = stream
        self._chunks: deque[SpeechChunk] = deque()
        self._error: ProviderError | None = None
        self._learned = False
        self._more = asyncio.Event()

    async def learn(self, script: tuple[str, ...]) -> None:
        """Have it spoken; what goes wrong is raised where it is played."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._recite(script), name="rehearsal")
                async for chunk in self._stream.chunks():
                    self._chunks.append(chunk)
                    self._more.set()
        except* ProviderError as group:
            self._error = _first(group)
            log.info("rehearsal_failed", vendor=self._error.vendor, error=str(self._error))
        finally:
            self._learned = True
            self._more.set()

    async def play(self) -> AsyncIterator[SpeechChunk]:
        """All of it, as fast as it is there. Raises ProviderError after what there is of a failed one."""
        while True:
            while self._chunks:
                yield self._chunks.popleft()
            if self._error is not None:
                raise self._error
            if self._learned:
                return
            self._more.clear()
            await self._more.wait()

    async def cancel(self) -> None:
        """Learn no more. Idempotent."""
        if not self._learned:
            with suppress(ProviderError):
                await self._stream.cancel()

    async def _recite(self, script: tuple[str, ...]) -> None:
        for piece in script:
            await self._stream.push(piece)
        await self._stream.finish()


class _Performance:
    """One utterance of a voice that has something ready: which it is shows once its whole text is here."""

    def __init__(self, voice: RehearsedVoice) -> None:
        self._voice = voice
        self._said: list[str] = []
        self._part: _Part | None = None
        self._live: SpeechStream | None = None
        self._decided = asyncio.Event()

    async def push(self, text: str) -> None:
        """Speak `text`."""
        self._said.append(text)
        if self._live is not None:
            await self._live.push(text)
        elif not self._voice.rehearsed("".join(self._said)):
            await self._improvise()

    async def finish(self) -> None:
        """No more text will come. Idempotent."""
        if self._part is not None:
            return
        if self._live is None:
            self._part = self._voice.take("".join(self._said))
            if self._part is not None:
                self._decided.set()
                return
            await self._improvise()
        if self._live is not None:
            await self._live.finish()

    async def chunks(self) -> AsyncIterator[SpeechChunk]:
        """The audio in order."""
        await self._decided.wait()
        if self._part is not None:
            async for chunk in self._part.play():
                yield chunk
        elif self._live is not None:
            async for chunk in self._live.chunks():
                yield chunk

    async def cancel(self) -> None:
        """Stop now. Idempotent."""
        self._decided.set()
        if self._part is not None:
            await self._part.cancel()
        if self._live is not None:
            await self._live.cancel()

    async def _improvise(self) -> None:
        self._live = self._voice.improvise()
        self._decided.set()
        for text in self._said:
            await self._live.push(text)


async def _pieces(text: str) -> tuple[str, ...]:
    """What an utterance of that text hands to its voice."""
    utterance = Utterance(new_id("msg"), "", Origin.GREETING, remembered=False)
    utterance.write(text)
    utterance.close()
    return tuple([piece async for piece in utterance.pieces()])


def _first(group: BaseExceptionGroup[ProviderError]) -> ProviderError:
    error: BaseException = group.exceptions[0]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ProviderError)
    return error
