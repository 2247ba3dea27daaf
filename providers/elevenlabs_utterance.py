"""One utterance of ElevenLabs: text in, audio and word times out, and what to do when nothing comes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from enum import Enum, auto
from typing import Protocol

import structlog

from providers.base import AudioFormat, Encoding, SpeechChunk
from providers.elevenlabs_socket import ContextSink, SpeechSocket
from providers.elevenlabs_wire import (
    CODE,
    VENDOR,
    ServerMessage,
    WordTimes,
    begin_context,
    close_context,
    speak,
    unavailable,
)
from providers.errors import ProviderError, RateLimited, TimedOut
from wire.config import ElevenLabsVoice

log = structlog.get_logger(__name__)

FIRST_AUDIO_S = 2.0
"""From the first flushed text to the first audio."""
SILENCE_S = 1.2
"""Between two pieces of audio while more is owed: what was sent ahead hides most of it from the caller."""
PATIENCE_S = 1.0
"""The longest `retry-after` that is waited for while a caller listens to silence."""
RETRY_S = 0.25
MAX_BACKLOG_S = 600.0
"""Audio kept for a reader that does not read; more than any text of ours makes. The speech fails beyond it."""


class Voice(Protocol):
    """What an utterance needs of the voice of its call."""

    output: AudioFormat
    config: ElevenLabsVoice

    async def begin(self, sink: ContextSink) -> tuple[SpeechSocket, str]:
        """A socket with room, and a fresh context of it, counted and routed to `sink`. Raises ProviderError."""
        ...


class _State(Enum):
    OPEN = auto()
    FINISHED = auto()
    """All text is here; the speech is not."""
    SPOKEN = auto()
    CANCELLED = auto()
    FAILED = auto()


class Utterance:
    """`providers.base.SpeechStream` of one utterance; starts over once on a fresh socket while nothing was heard."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._state = _State.OPEN
        self._error: ProviderError | None = None
        self._lost: ProviderError | None = None
        self._started_over = False
        self._texts: list[str] = []
        self._delivering = asyncio.Lock()
        self._chunks: deque[SpeechChunk] = deque()
        self._backlog = 0
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._reset()

    def _reset(self) -> None:
        """Nothing of this utterance is with the vendor."""
        self._socket: SpeechSocket | None = None
        self._context: str | None = None
        self._sent = 0
        self._close_sent = False
        self._received = 0
        self._carry = b""
        self._asked_at: float | None = None
        self._pushed_at = self._heard_at = 0.0
        self._times = WordTimes()

    # --- what the call does ---

    async def push(self, text: str) -> None:
        """Speak `text`. Text without a letter or digit makes no sound and is not sent. Raises ProviderError."""
        if self._state is _State.CANCELLED:
            return
        if self._error is not None:
            raise self._error
        if self._state is not _State.OPEN:
            raise RuntimeError("text after the end of the utterance")
        if any(char.isalnum() for char in text):
            self._texts.append(text)
            await self._deliver()

    async def finish(self) -> None:
        """No more text will come. Failures show in `chunks`."""
        if self._state is not _State.OPEN:
            return
        self._state = _State.FINISHED
        if not self._texts:
            self._state = _State.SPOKEN
            self._wake.set()
            return
        try:
            await self._deliver()
        except ProviderError:
            return

    async def chunks(self) -> AsyncIterator[SpeechChunk]:
        """The speech in order. Raises ProviderError once all audio that came has been given."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._backlog -= len(chunk.audio)
                yield chunk
            if self._error is not None:
                raise self._error
            if self._state in (_State.SPOKEN, _State.CANCELLED):
                return
            if self._lost is not None:
                await self._deliver()
            else:
                await self._wait()

    async def cancel(self) -> None:
        """Stop now. The context is closed; what still comes of it is dropped by its id."""
        if self._state in (_State.SPOKEN, _State.CANCELLED, _State.FAILED):
            return
        self._state = _State.CANCELLED
        self._chunks.clear()
        self._wake.set()
        if self._socket is not None and self._context is not None:
            self._socket.forget(self._context)
        if self._delivering.locked():
            return  # whoever delivers sees the state and closes the context
        try:
            await self._deliver()
        except ProviderError:
            return

    # --- what the socket asks and tells ---

    @property
    def awaits_text(self) -> bool:
        """More text may come on a context that has had some."""
        return self._sent > 0 and not self._close_sent

    def on_message(self, message: ServerMessage) -> None:
        """Audio, word times, or the end of our context."""
        audio = self._whole_samples(message.audio or b"")
        before = self._voice.output.duration_ms(self._received)
        self._received += len(audio)
        after = self._voice.output.duration_ms(self._received)
        words = self._times.feed(message.alignment, before, after)
        if message.final:
            words += self._times.finish(after)
            if self._close_sent:
                self._state = _State.SPOKEN
            else:
                self._lost = unavailable("ended the speech early")
        if audio or words:
            self._heard_at = self._loop.time()
            self._backlog += len(audio)
            self._chunks.append(SpeechChunk(audio, words))
        if self._voice.output.duration_ms(self._backlog) > MAX_BACKLOG_S * 1000:
            self._fail(unavailable("sent more speech than can be kept"))
        self._wake.set()

    def on_lost(self, error: ProviderError) -> None:
        """Our context is gone."""
        self._lost = error
        self._wake.set()

    def _whole_samples(self, audio: bytes) -> bytes:
        """PCM may be cut inside a sample; the odd byte waits for its other half."""
        if self._voice.output.encoding is Encoding.MULAW:
            return audio
        audio = self._carry + audio
        even = len(audio) & ~1
        self._carry = audio[even:]
        return audio[:even]

    # --- delivering ---

    async def _deliver(self) -> None:
        """Bring the vendor up to date with texts and state, starting over once where that can help."""
        async with self._delivering:
            while True:
                try:
                    if self._lost is not None and self._state is not _State.CANCELLED:
                        raise self._lost
                    await self._send_pending()
                except ProviderError as error:
                    wait = self._patience(error)
                    if wait is None:
                        self._fail(error)
                        raise
                    log.info("speech_retry", vendor=VENDOR, error=str(error))
                    self._start_over()
                    await asyncio.sleep(wait)
                else:
                    return

    async def _send_pending(self) -> None:
        if self._context is None:
            if self._state is _State.CANCELLED:
                return
            self._socket, self._context = await self._voice.begin(self)
            if self._cancelled():
                self._socket.discard(self._context)
                return
            await self._socket.send(begin_context(self._context, self._voice.config))
        assert self._socket is not None
        while self._sent < len(self._texts) and not self._cancelled():
            text = self._texts[self._sent]
            self._sent += 1
            self._times.expect(text)
            self._pushed_at = self._loop.time()
            if self._asked_at is None:
                self._asked_at = self._pushed_at
            self._wake.set()
            await self._socket.send(speak(self._context, text))
        if self._state in (_State.FINISHED, _State.CANCELLED) and not self._close_sent:
            self._close_sent = True
            self._pushed_at = self._loop.time()
            self._wake.set()
            await self._socket.send(close_context(self._context))

    def _cancelled(self) -> bool:
        """Asked anew after every wait: `cancel` may come in between."""
        return self._state is _State.CANCELLED

    def _patience(self, error: ProviderError) -> float | None:
        """Seconds until this utterance may start over; None when it may not."""
        connecting_took_all = isinstance(error, TimedOut) and self._context is None
        if self._started_over or self._received or not error.retryable or connecting_took_all or self._cancelled():
            return None
        if not isinstance(error, RateLimited):
            return 0.0
        wait = RETRY_S if error.retry_after is None else error.retry_after
        return wait if wait <= PATIENCE_S else None

    def _start_over(self) -> None:
        self._leave_socket()
        self._started_over = True
        self._lost = None
        self._reset()

    def _fail(self, error: ProviderError) -> None:
        if self._state is not _State.CANCELLED:
            self._state = _State.FAILED
            self._error = error
        self._leave_socket()
        self._wake.set()

    def _leave_socket(self) -> None:
        """A socket that failed one utterance gets no other."""
        if self._socket is not None and self._context is not None:
            self._socket.retire()
            self._socket.forget(self._context)

    # --- waiting ---

    def _deadline(self) -> float | None:
        """When silence becomes a fault (loop time); None while the vendor owes nothing."""
        if self._asked_at is None:
            return None
        if not self._received:
            return self._asked_at + FIRST_AUDIO_S
        if self._close_sent or self._heard_at < self._pushed_at:
            return max(self._heard_at, self._pushed_at) + SILENCE_S
        return None

    async def _wait(self) -> None:
        """Until something happens or the vendor has been silent for too long."""
        self._wake.clear()
        try:
            async with asyncio.timeout_at(self._deadline()):
                await self._wake.wait()
        except TimeoutError:
            what = "went silent" if self._received else "sent no audio in time"
            self._lost = TimedOut(f"{VENDOR} {what}", vendor=VENDOR, code=CODE)
