"""From the text of an utterance to its audio: one task an utterance, text going in while audio comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from pipelines.audio.convert import Converter
from pipelines.audio.resample import Quality
from pipelines.speaking.utterance import Utterance
from providers.base import AudioFormat, SpeechChunk, SpeechStream, TextToSpeech, TimedWord
from providers.errors import ProviderError

log = structlog.get_logger(__name__)

CANCEL_SECONDS = 2.0
"""How long an engine may take to be told that nobody listens any more."""


class Synthesis:
    """Speaks utterances with one voice into the line's format."""

    def __init__(
        self,
        voice: TextToSpeech,
        line: AudioFormat,
        on_audio: Callable[[Utterance, bytes], None],
        on_text: Callable[[Utterance], None],
    ) -> None:
        """`on_text` is told when the voice gets the first words of an utterance, `on_audio` gets every piece of audio
        in order; neither may block."""
        self._voice = voice
        self._line = line
        self._on_audio = on_audio
        self._on_text = on_text

    async def speak(self, utterance: Utterance) -> None:
        """Run until all speech of the utterance was handed over; a voice that fails on the way is asked once more for
        the rest. Raises ProviderError; cancel to stop."""
        try:
            await self._speak(utterance)
        except ProviderError as error:
            if not error.retryable:
                raise
            log.warning("speech_resumed", vendor=error.vendor, error=str(error), spoken_ms=round(utterance.spoken_ms))
            utterance.start_over()
            await self._speak(utterance)

    async def _speak(self, utterance: Utterance) -> None:
        pieces = utterance.pieces()
        first = await anext(pieces, None)
        if first is None:
            return
        self._on_text(utterance)
        stream = self._voice.open()
        try:
            # The first words go straight to the engine; only what follows them needs a task of its own.
            await stream.push(first)
            async with asyncio.TaskGroup() as group:
                group.create_task(_push_rest(stream, utterance), name="speech text")
                await self._drain(utterance, stream)
        except ExceptionGroup as group_error:
            failures, others = group_error.split(ProviderError)
            if others is not None or failures is None:
                raise
            raise _first(failures) from None
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_SECONDS):
                    await stream.cancel()

    async def _drain(self, utterance: Utterance, stream: SpeechStream) -> None:
        converter = Converter(self._voice.output, self._line, Quality.WHOLE)
        async for chunk in stream.chunks():
            self._take(utterance, chunk, converter)
        tail = converter.flush()
        if tail:
            self._give(utterance, tail)

    def _take(self, utterance: Utterance, chunk: SpeechChunk, converter: Converter) -> None:
        if chunk.words:
            from_ms = round(utterance.from_ms)
            utterance.words.add(
                [TimedWord(word.word, word.start_ms + from_ms, word.end_ms + from_ms) for word in chunk.words]
            )
        audio = converter.convert(chunk.audio)
        if audio:
            self._give(utterance, audio)

    def _give(self, utterance: Utterance, audio: bytes) -> None:
        utterance.spoken_ms += self._line.duration_ms(len(audio))
        self._on_audio(utterance, audio)


async def _push_rest(stream: SpeechStream, utterance: Utterance) -> None:
    async for piece in utterance.pieces():
        await stream.push(piece)
    await stream.finish()


def _first(group: ExceptionGroup[ProviderError]) -> ProviderError:
    error = group.exceptions[0]
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
