"""What recognisers behind a socket have in common: the way of the audio there, the way of the words back, and what
happens when the connection breaks.

    NEW ── start ──▶ CONNECTING ──▶ LISTENING ◀── reconnected, ≤ 3 s replayed ──┐
                          │            └── failed ─────────────────────────────┤
                          └── refused ──▶ LOST ◀── failed again within 10 s ───┘        aclose: CLOSED, from anywhere
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from enum import Enum, auto

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from providers.base import AudioFormat, SttEvent, SttReconnected
from providers.errors import ProviderError, TimedOut, Unavailable
from providers.socket import AudioFeed, VendorEndpoint

log = structlog.get_logger(__name__)

CONNECT_DEADLINE = 6.0
"""Seconds for everything until the vendor is ready for audio, retries included."""
MESSAGE_S = 0.04
"""Audio is sent in messages of at least this much, and at most twice as much when it has piled up."""
BACKLOG_S = 5.0
REPLAY_S = 3.0
FAILURE_WINDOW_S = 10.0
"""A second failure within this window is the last."""
SEND_DEADLINE = 3.0
CLOSE_DEADLINE = 2.0
EVENTS_BOUND = 256
"""A consumer that is this many events behind stops our reading of the socket."""


class Life(Enum):
    """What a recogniser is doing."""

    NEW = auto()
    CONNECTING = auto()
    LISTENING = auto()
    LOST = auto()
    CLOSED = auto()


class SocketRecogniser(ABC):
    """`providers.base.SpeechToText` over one websocket at a time; one object a call. Create it inside the event loop.

    A vendor's class says how its connection is opened, read, watched and left, and what a new one must hear again.
    """

    native_turns = False
    finalize_message: str
    """What is sent once all audio before `finalize` is."""

    def __init__(self, target: VendorEndpoint, audio: AudioFormat) -> None:
        self.input = audio
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._feed = AudioFeed(audio, backlog=BACKLOG_S, replay=REPLAY_S)
        self._message_size = self._feed.size(MESSAGE_S)
        self._wake = asyncio.Event()
        self._final_wanted = False
        self._events: asyncio.Queue[SttEvent | ProviderError | None] = asyncio.Queue(EVENTS_BOUND)
        self._state = Life.NEW
        self._life: asyncio.Task[None] | None = None
        self._connected_at = 0
        self._last_failure: float | None = None

    # --- what differs from vendor to vendor ---

    @abstractmethod
    async def _connect(self) -> ClientConnection:
        """A connection that is ready for audio. Raises ProviderError."""

    @abstractmethod
    async def _receive(self, socket: ClientConnection) -> None:
        """Read for ever and `_tell` what was heard. Raises ProviderError when the connection is over."""

    @abstractmethod
    async def _watch(self, socket: ClientConnection) -> None:
        """Do what time demands, for as long as the connection lives. Raises ProviderError when it is dead."""

    @abstractmethod
    async def _hang_up(self, socket: ClientConnection) -> None:
        """Say goodbye if the vendor still listens; the socket is gone afterwards."""

    @abstractmethod
    def _resume_from(self, earliest: float) -> float:
        """From which second of the lost connection the next one must hear the audio; before `earliest` it is gone."""

    @abstractmethod
    async def _resumed(self, replayed_s: float) -> None:
        """A new connection begins, and hears `replayed_s` seconds of old audio first."""

    @abstractmethod
    def _last_words(self) -> Iterable[SttEvent]:
        """What is still to be told of words that the vendor will not settle any more."""

    def _on_sent(self, audio: bytes) -> None:  # noqa: B027 - most vendors do not care
        """`audio` has been sent."""

    # --- the contract ---

    async def start(self) -> None:
        """Connect. Raises ProviderError."""
        if self._state is not Life.NEW:
            raise RuntimeError(f"start() in state {self._state.name}")
        self._state = Life.CONNECTING
        opened: asyncio.Future[None] = self._loop.create_future()
        self._life = self._loop.create_task(self._live(opened), name=self._target.vendor)
        try:
            await opened
        except asyncio.CancelledError:
            await self.aclose()
            raise

    def feed(self, audio: bytes) -> None:
        """Take audio; never blocks. More than 5 s unsent drops the oldest."""
        self._feed.append(audio)
        if len(self._feed) >= self._message_size:
            self._wake.set()

    def finalize(self) -> None:
        """Have the vendor settle what was said so far, once all audio fed so far has been sent."""
        self._final_wanted = True
        self._wake.set()

    async def events(self) -> AsyncIterator[SttEvent]:
        """Everything that is heard, and `SttReconnected`s."""
        while (event := await self._events.get()) is not None:
            if isinstance(event, ProviderError):
                raise event
            yield event

    async def aclose(self) -> None:
        """Say goodbye if the vendor still listens, and release everything within 2 s."""
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
        vendor, code = self._target.vendor, self._target.code
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
            log.exception("stt_crashed", vendor=vendor)
            await self._give_up(Unavailable(f"{vendor} failed inside", vendor=vendor, code=code), opened)
        finally:
            if not opened.done():
                opened.set_exception(Unavailable(f"{vendor} closed while connecting", vendor=vendor, code=code))
            if socket is not None:
                await self._hang_up(socket)

    async def _open(self) -> ClientConnection:
        try:
            async with asyncio.timeout(CONNECT_DEADLINE):
                return await self._connect()
        except TimeoutError as late:
            raise self._timed_out(f"was not ready in {CONNECT_DEADLINE:g} s") from late

    async def _converse(self, socket: ClientConnection) -> ProviderError:
        """Send, receive and watch until the connection fails; returns how."""
        failures: list[ProviderError] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(socket))
                group.create_task(self._receive(socket))
                group.create_task(self._watch(socket))
        except* ProviderError as group_failure:
            failures = [error for error in group_failure.exceptions if isinstance(error, ProviderError)]
        return failures[0]

    def _forgive(self, failure: ProviderError) -> None:
        """Let one failure pass, raise the second that follows too soon."""
        now = self._loop.time()
        if self._last_failure is not None and now - self._last_failure < FAILURE_WINDOW_S:
            raise failure
        self._last_failure = now
        log.warning("stt_connection_lost", vendor=self._target.vendor, error=str(failure))

    async def _take_up(self) -> None:
        """Have the new connection hear what the old one may have missed."""
        bytes_per_second = self.input.bytes_per_second
        replay_from = self._resume_from((self._feed.earliest - self._connected_at) / bytes_per_second)
        replayed = self._feed.rewind(self._connected_at + self._feed.size(replay_from))
        self._connected_at = self._feed.position
        await self._resumed(replayed / bytes_per_second)
        self._wake.set()
        replayed_ms = round(self.input.duration_ms(replayed))
        dropped = self._feed.dropped
        log.info("stt_connection_back", vendor=self._target.vendor, replayed_ms=replayed_ms, dropped_bytes=dropped)
        await self._events.put(SttReconnected(replayed_ms))

    async def _give_up(self, failure: ProviderError, opened: asyncio.Future[None]) -> None:
        self._state = Life.LOST
        if not opened.done():
            opened.set_exception(failure)
            return
        await self._tell(self._last_words())
        await self._events.put(failure)

    # --- one connection ---

    async def _send(self, socket: ClientConnection) -> None:
        while True:
            if len(self._feed) >= self._message_size or (self._final_wanted and len(self._feed)):
                message: bytes | str = self._feed.take(2 * self._message_size)
            elif self._final_wanted:
                self._final_wanted = False
                message = self.finalize_message
            else:
                self._wake.clear()
                await self._wake.wait()
                continue
            if not await self._transmit(socket, message):
                return
            if isinstance(message, bytes):
                self._on_sent(message)

    async def _transmit(self, socket: ClientConnection, message: bytes | str) -> bool:
        """False when the connection is closed: `_receive` says so, after it has read what came before the end."""
        try:
            async with asyncio.timeout(SEND_DEADLINE):
                await socket.send(message)
        except TimeoutError as stuck:
            raise self._timed_out("takes no more audio") from stuck
        except ConnectionClosed:
            return False
        return True

    async def _tell(self, events: Iterable[SttEvent]) -> None:
        for event in events:
            await self._events.put(event)

    def _timed_out(self, how: str) -> TimedOut:
        return TimedOut(f"{self._target.vendor} {how}", vendor=self._target.vendor, code=self._target.code)
