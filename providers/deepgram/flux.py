"""Deepgram Flux on a live call: a socket, the audio on its way there, and the turns that come back.

Flux gives turns natively, so nothing here decides when a turn ends, except where Flux cannot: it went silent in the
middle of one (known to happen after noise), or the audio stopped coming while one was open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from websockets.asyncio.client import ClientConnection

from providers.base import AudioFormat, Encoding, SttEvent
from providers.deepgram.flux_link import open_flux, receive
from providers.deepgram.flux_turns import FluxTurns
from providers.deepgram.flux_wire import FORCE_END_TURN, VENDOR, TurnInfo, eot_timeout_ms, is_english, listen_url
from providers.deepgram.link import DeepgramAccess, hang_up
from providers.recogniser import SocketRecogniser
from wire.config import FluxStt

SILENCE_AFTER_S = 0.5
"""Flux counts time in audio: without any, an open turn never ends. This long without audio is filled with silence."""
STALL_S = 3.0
IDLE_STALL_S = 10.0
"""Flux reports every 0.25 s of audio even when nobody speaks; this long without a word from it, it is gone."""


class FluxSpeechToText(SocketRecogniser):
    """Flux as a recogniser with native turns: `NativeTurn`s and `SttReconnected`s.

    It takes µ-law 8 kHz as it comes from the telephone, or 16-bit samples. START and RESUMED have text too; UPDATE
    comes only when it changed. `finalize` ends the current turn.
    """

    native_turns = True
    finalize_message = FORCE_END_TURN

    def __init__(self, config: FluxStt, audio: AudioFormat, connection: DeepgramAccess) -> None:
        super().__init__(connection.endpoint(listen_url(connection.ws_url, config, audio), VENDOR), audio)
        eot_timeout_s = eot_timeout_ms(config) / 1000
        language = config.language if is_english(config) else None
        self._turns = FluxTurns(eot_timeout_s=eot_timeout_s, default_language=language)
        self._stall_s = max(STALL_S, 2 * eot_timeout_s)
        zero = b"\xff" if audio.encoding is Encoding.MULAW else b"\x00"
        self._silence = zero * self._feed.size(SILENCE_AFTER_S)
        self._last_fed = self._last_message = 0.0

    def feed(self, audio: bytes) -> None:
        """Take audio; never blocks. More than 5 s unsent drops the oldest."""
        self._last_fed = self._loop.time()
        super().feed(audio)

    async def _connect(self) -> ClientConnection:
        socket = await open_flux(self._target)
        self._last_message = self._last_fed = self._loop.time()
        return socket

    async def _hang_up(self, socket: ClientConnection) -> None:
        await hang_up(socket)

    async def _receive(self, socket: ClientConnection) -> None:
        while True:
            message = await receive(socket)
            self._last_message = self._loop.time()
            if isinstance(message, TurnInfo):
                await self._tell(self._turns.take(message))

    async def _watch(self, socket: ClientConnection) -> None:
        """Fill missing audio with silence; declare a connection dead that says nothing although it hears audio."""
        while True:
            now = self._loop.time()
            dead_at = self._last_message + (self._stall_s if self._turns.is_open else IDLE_STALL_S)
            if now >= dead_at:
                await self._tell(self._turns.force_end())
                raise self._timed_out("went silent")
            if now >= self._last_fed + SILENCE_AFTER_S:
                self.feed(self._silence)
            await asyncio.sleep(min(dead_at, self._last_fed + SILENCE_AFTER_S) - now)

    def _resume_from(self, earliest: float) -> float:
        return self._turns.rewind(earliest)

    async def _resumed(self, replayed_s: float) -> None:
        self._turns.restart(replayed_s)

    def _last_words(self) -> Iterable[SttEvent]:
        return self._turns.force_end()
