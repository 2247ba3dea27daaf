"""Deepgram Nova on a live call: words, and no opinion on whose turn it is.

Nova answers late or not at all in a few known ways; each has its deadline here. A Finalize may go unanswered when
little audio is buffered. A connection may fall silent although it hears a voice. And one that hears nothing at all is
closed after 10 s, unless it is told to stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import structlog
from websockets.asyncio.client import ClientConnection

from providers.base import AudioFormat, Encoding, SttEvent, Transcript
from providers.deepgram.link import CODE, DeepgramAccess, hang_up, read
from providers.deepgram.messages import Unreadable
from providers.deepgram.nova_segments import NovaSegments
from providers.deepgram.nova_wire import (
    FINALIZE,
    KEEP_ALIVE,
    MULTILINGUAL,
    VENDOR,
    NovaError,
    NovaMessage,
    Results,
    UtteranceEnd,
    listen_url,
    parse,
)
from providers.errors import Unavailable
from providers.loudness import loud_share
from providers.recogniser import SocketRecogniser
from providers.socket import connect_retrying
from wire.config import NovaStt

log = structlog.get_logger(__name__)

FINAL_PATIENCE_S = 0.4
"""How long a Finalize may take before the words known so far count as final."""
KEEP_ALIVE_S = 4.0
"""After this long without audio, Nova is told that there will be more: it gives up after 10 s."""
UNANSWERED_S = 10.0
"""Nova reports at least every few seconds of voice; this long without a word about it, it is gone."""
VOICE_S = 0.3
"""Sound of less than this may be a click, and a click need not be answered."""
LOUD_SHARE = 0.1
OPENING_S = 0.1
"""Silence that opens a connection nobody speaks on yet: until some audio came, keeping it alive does not work."""


class NovaSpeechToText(SocketRecogniser):
    """Nova as a recogniser without turns: `Transcript`s and `SttReconnected`s.

    It takes µ-law 8 kHz as it comes from the telephone, or 16-bit samples. An utterance that Nova itself believes over
    ends with a `speech_final` transcript, which is empty when all its words were final before.
    """

    finalize_message = FINALIZE

    def __init__(self, config: NovaStt, audio: AudioFormat, connection: DeepgramAccess) -> None:
        super().__init__(connection.endpoint(listen_url(connection.ws_url, config, audio), VENDOR), audio)
        language = None if config.language == MULTILINGUAL else config.language
        self._segments = NovaSegments(min_confidence=config.min_confidence, default_language=language)
        self._alarm = asyncio.Event()
        self._final_due: float | None = None
        self._final_at = 0
        """Position in the call's audio that the awaited final words go up to."""
        self._last_sent = 0.0
        self._audio_sent = False
        self._voice_s = 0.0
        self._unanswered_since: float | None = None
        self._kept: list[Transcript] = []

    def finalize(self) -> None:
        """Have Nova settle what was said so far. If it does not within 0.4 s, what is known of it counts as final."""
        super().finalize()
        self._final_due = self._loop.time() + FINAL_PATIENCE_S
        self._final_at = self._feed.position + len(self._feed)
        self._alarm.set()

    async def _connect(self) -> ClientConnection:
        socket = await connect_retrying(self._target)
        self._last_sent = self._loop.time()
        self._audio_sent = False
        self._answered()
        request_id = socket.response.headers.get("dg-request-id") if socket.response else None
        log.info("nova_connected", request_id=request_id)
        return socket

    async def _hang_up(self, socket: ClientConnection) -> None:
        await hang_up(socket)

    # --- what comes ---

    async def _receive(self, socket: ClientConnection) -> None:
        while True:
            message = self._understood(await read(socket, VENDOR))
            self._answered()
            if isinstance(message, Results):
                if message.from_finalize:
                    self._final_due = None
                await self._tell(self._segments.take(message))
            elif isinstance(message, UtteranceEnd):
                await self._tell(self._segments.utterance_end(message))

    def _understood(self, message: str | bytes) -> NovaMessage | None:
        """None for a message that means nothing to us. Raises Unavailable when Nova fails.

        Garbage is noted and skipped: if Nova sends nothing else, the silence that this is will be noticed.
        """
        try:
            understood = parse(message)
        except Unreadable:
            log.warning("nova_unreadable_message")
            return None
        if isinstance(understood, NovaError):
            reason = f"{understood.variant} {understood.description}".strip()
            raise Unavailable(f"{VENDOR} failed: {reason}", vendor=VENDOR, code=CODE)
        return understood

    def _answered(self) -> None:
        self._voice_s = 0.0
        self._unanswered_since = None

    # --- what time demands ---

    def _on_sent(self, audio: bytes) -> None:
        self._last_sent = self._loop.time()
        self._audio_sent = True
        if self._unanswered_since is None and loud_share(audio, self.input.encoding) >= LOUD_SHARE:
            self._voice_s += len(audio) / self.input.bytes_per_second
            if self._voice_s >= VOICE_S:
                self._unanswered_since = self._last_sent
                self._alarm.set()

    async def _watch(self, socket: ClientConnection) -> None:
        while True:
            self._alarm.clear()
            now = self._loop.time()
            if self._final_due is not None and now >= self._final_due:
                self._final_due = None
                second = (self._final_at - self._connected_at) / self.input.bytes_per_second
                await self._tell(self._segments.promote(until=second))
            if self._unanswered_since is not None and now >= self._unanswered_since + UNANSWERED_S:
                raise self._timed_out("went silent")
            if now >= self._last_sent + KEEP_ALIVE_S and not await self._keep_alive(socket):
                return
            await self._until_next_deadline()

    async def _until_next_deadline(self) -> None:
        deadlines = [self._last_sent + KEEP_ALIVE_S]
        if self._final_due is not None:
            deadlines.append(self._final_due)
        if self._unanswered_since is not None:
            deadlines.append(self._unanswered_since + UNANSWERED_S)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(deadlines)):
                await self._alarm.wait()

    async def _keep_alive(self, socket: ClientConnection) -> bool:
        """False when the connection is closed."""
        self._last_sent = self._loop.time()
        if self._audio_sent:
            return await self._transmit(socket, KEEP_ALIVE)
        zero = b"\xff" if self.input.encoding is Encoding.MULAW else b"\x00"
        self.feed(zero * self._feed.size(OPENING_S))
        return True

    # --- over two connections ---

    def _resume_from(self, earliest: float) -> float:
        second, self._kept = self._segments.rewind(earliest)
        return second

    async def _resumed(self, replayed_s: float) -> None:
        kept, self._kept = self._kept, []
        await self._tell(kept)
        # An answer that the old connection owed is asked of the new one.
        self._final_wanted |= self._final_due is not None

    def _last_words(self) -> Iterable[SttEvent]:
        return self._segments.promote()
