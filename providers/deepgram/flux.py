"""Deepgram Flux on a live call: a socket, the audio on its way there, and the turns that come back.

Flux gives turns natively, so nothing here decides when a turn ends, except where Flux cannot: it went silent in the
middle of one (known to happen after noise), or the audio stopped coming while one was open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum, auto

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from providers.base import AudioFormat, Encoding, NativeTurn, SttEvent, SttReconnected
from providers.deepgram.flux_link import CODE, hang_up, open_flux, receive
from providers.deepgram.flux_turns import FluxTurns
from providers.deepgram.flux_wire import FORCE_END_TURN, VENDOR, TurnInfo, eot_timeout_ms, is_english, listen_url
from providers.errors import ProviderError, TimedOut, Unavailable
from providers.socket import AudioFeed, VendorEndpoint
from wire.config import FluxStt

log = structlog.get_logger(__name__)

MESSAGE_S = 0.04
"""Audio is sent in messages of at least this much, and at most twice as much when it has piled up."""
BACKLOG_S = 5.0
REPLAY_S = 3.0
SILENCE_AFTER_S = 0.5
"""Flux counts time in audio: without any, an open turn never ends. This long without audio is filled with silence."""
STALL_S = 3.0
IDLE_STALL_S = 10.0
"""Flux reports every 0.25 s of audio even when nobody speaks; this long without a word from it, it is gone."""
FAILURE_WINDOW_S = 10.0
"""A second failure within this window is the last."""
SEND_DEADLINE = 3.0
CLOSE_DEADLINE = 2.0
EVENTS_BOUND = 256
"""A consumer that is this many events behind stops our reading of the socket."""


@dataclass(frozen=True, slots=True)
class DeepgramAccess:
    """The operator's key and the websocket origin, such as `wss://api.deepgram.com`."""

    api_key: str = field(repr=False)
    ws_url: str


class Life(Enum):
    """What a recogniser is doing."""

    NEW = auto()
    CONNECTING = auto()
    LISTENING = auto()
    LOST = auto()
    CLOSED = auto()


class FluxSpeechToText:
    """`providers.base.SpeechToText` on Flux; one object a call. Create it inside the event loop.

    It takes µ-law 8 kHz as it comes from the telephone, or 16-bit samples.
    """

    native_turns = True

    def __init__(self, config: FluxStt, audio: AudioFormat, connection: DeepgramAccess) -> None:
        self.input = audio
        self._loop = asyncio.get_running_loop()
        headers = {"Authorization": f"Token {connection.api_key}"}
        self._target = VendorEndpoint(listen_url(connection.ws_url, config, audio), headers, VENDOR, CODE)
        eot_timeout_s = eot_timeout_ms(config) / 1000
        language = config.language if is_english(config) else None
        self._turns = FluxTurns(eot_timeout_s=eot_timeout_s, default_language=language)
        self._stall_s = max(STALL_S, 2 * eot_timeout_s)
        self._feed = AudioFeed(audio, backlog=BACKLOG_S, replay=REPLAY_S)
        self._message_size = self._feed.size(MESSAGE_S)
        zero = b"\xff" if audio.encoding is Encoding.MULAW else b"\x00"
        self._silence = zero * self._feed.size(SILENCE_AFTER_S)
        self._wake = asyncio.Event()
        self._force_end = False
        self._events: asyncio.Queue[SttEvent | ProviderError | None] = asyncio.Queue(EVENTS_BOUND)
        self._state = Life.NEW
        self._life: asyncio.Task[None] | None = None
        self._connected_at = 0
        self._last_fed = self._last_message = 0.0
        self._last_failure: float | None = None

    # --- the contract ---

    async def start(self) -> None:
        """Connect. Raises ProviderError."""
        if self._state is not Life.NEW:
            raise RuntimeError(f"start() in state {self._state.name}")
        self._state = Life.CONNECTING
        opened: asyncio.Future[None] = self._loop.create_future()
        self._life = self._loop.create_task(self._live(opened), name="flux")
        try:
            await opened
        except asyncio.CancelledError:
            await self.aclose()
            raise

    def feed(self, audio: bytes) -> None:
        """Take audio; never blocks. More than 5 s unsent drops the oldest."""
        self._last_fed = self._loop.time()
        self._append(audio)

    def finalize(self) -> None:
        """End the current turn now, once all audio fed so far has been sent."""
        self._force_end = True
        self._wake.set()

    async def events(self) -> AsyncIterator[SttEvent]:
        """`NativeTurn`s and `SttReconnected`s. START and RESUMED have text too; UPDATE comes only when it changed."""
        while (event := await self._events.get()) is not None:
            if isinstance(event, ProviderError):
                raise event
            yield event

    async def aclose(self) -> None:
        """Say goodbye if Flux still listens, and release everything within 2 s."""
        self._state = Life.CLOSED
        if self._life is not None and not self._life.done():
            self._life.cancel()
            await asyncio.wait({self._life}, timeout=CLOSE_DEADLINE)
        while not self._events.empty():
            self._events.get_nowait()
        self._events.put_nowait(None)

    # --- the life of the recogniser: one task ---

    async def _live(self, opened: asyncio.Future[None]) -> None:
        """Connect, listen, connect again; the only place that knows a connection from the next."""
        socket: ClientConnection | None = None
        try:
            socket = await self._open()
            self._state = Life.LISTENING
            if not opened.done():
                opened.set_result(None)
            while True:
                failure = await self._converse(socket)
                socket.transport.abort()
                self._forgive(failure)
                socket = await self._open()
                await self._take_up()
        except ProviderError as lost:
            await self._give_up(lost, opened)
        except Exception:
            log.exception("flux_crashed")
            await self._give_up(Unavailable(f"{VENDOR} failed inside", vendor=VENDOR, code=CODE), opened)
        finally:
            if not opened.done():
                opened.set_exception(Unavailable(f"{VENDOR} closed while connecting", vendor=VENDOR, code=CODE))
            if socket is not None:
                await hang_up(socket)

    async def _open(self) -> ClientConnection:
        socket = await open_flux(self._target)
        self._last_message = self._last_fed = self._loop.time()
        return socket

    async def _converse(self, socket: ClientConnection) -> ProviderError:
        """Send, receive and watch until the connection fails; returns how."""
        failures: list[ProviderError] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(socket))
                group.create_task(self._receive(socket))
                group.create_task(self._watch())
        except* ProviderError as group_failure:
            failures = [error for error in group_failure.exceptions if isinstance(error, ProviderError)]
        return failures[0]

    def _forgive(self, failure: ProviderError) -> None:
        """Let one failure pass, raise the second that follows too soon."""
        now = self._loop.time()
        if self._last_failure is not None and now - self._last_failure < FAILURE_WINDOW_S:
            raise failure
        self._last_failure = now
        log.warning("flux_connection_lost", error=str(failure))

    async def _take_up(self) -> None:
        """Have the new connection hear what the old one may have missed."""
        bytes_per_second = self.input.bytes_per_second
        replay_from = self._turns.rewind((self._feed.earliest - self._connected_at) / bytes_per_second)
        replayed = self._feed.rewind(self._connected_at + self._feed.size(replay_from))
        self._connected_at = self._feed.position
        self._turns.restart(replayed / bytes_per_second)
        self._wake.set()
        replayed_ms = round(self.input.duration_ms(replayed))
        log.info("flux_reconnected", replayed_ms=replayed_ms, dropped_bytes=self._feed.dropped)
        await self._events.put(SttReconnected(replayed_ms))

    async def _give_up(self, failure: ProviderError, opened: asyncio.Future[None]) -> None:
        self._state = Life.LOST
        if not opened.done():
            opened.set_exception(failure)
            return
        await self._tell(self._turns.force_end())
        await self._events.put(failure)

    # --- one connection: three tasks ---

    async def _send(self, socket: ClientConnection) -> None:
        try:
            while True:
                if len(self._feed) >= self._message_size or (self._force_end and len(self._feed)):
                    message: bytes | str = self._feed.take(2 * self._message_size)
                elif self._force_end:
                    self._force_end = False
                    message = FORCE_END_TURN
                else:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                async with asyncio.timeout(SEND_DEADLINE):
                    await socket.send(message)
        except TimeoutError as stuck:
            raise TimedOut(f"{VENDOR} takes no more audio", vendor=VENDOR, code=CODE) from stuck
        except ConnectionClosed:
            return  # `_receive` says so, after it has read what came before the end

    async def _receive(self, socket: ClientConnection) -> None:
        while True:
            message = await receive(socket)
            self._last_message = self._loop.time()
            if isinstance(message, TurnInfo):
                await self._tell(self._turns.take(message))

    async def _watch(self) -> None:
        """Fill missing audio with silence; declare a connection dead that says nothing although it hears audio."""
        while True:
            now = self._loop.time()
            dead_at = self._last_message + (self._stall_s if self._turns.is_open else IDLE_STALL_S)
            if now >= dead_at:
                await self._tell(self._turns.force_end())
                raise TimedOut(f"{VENDOR} went silent", vendor=VENDOR, code=CODE)
            if now >= self._last_fed + SILENCE_AFTER_S:
                self._last_fed = now
                self._append(self._silence)
            await asyncio.sleep(min(dead_at, self._last_fed + SILENCE_AFTER_S) - now)

    def _append(self, audio: bytes) -> None:
        self._feed.append(audio)
        if len(self._feed) >= self._message_size:
            self._wake.set()

    async def _tell(self, moments: list[NativeTurn]) -> None:
        for moment in moments:
            await self._events.put(moment)
