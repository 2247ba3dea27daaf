"""Speech of ElevenLabs over its multi-context socket: one warm socket a call, one context an utterance.

Whole clauses are pushed, each is flushed at once, and the context is closed with the last of them: only then does the
vendor say when the speech is complete.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import count

import structlog

from providers.base import AudioFormat, SpeechStream
from providers.elevenlabs_socket import ContextSink, SpeechSocket
from providers.elevenlabs_utterance import Utterance
from providers.elevenlabs_wire import CODE, VENDOR, output_for, speech_url, unavailable
from providers.errors import ProviderError
from providers.socket import VendorEndpoint, connect_vendor
from wire.config import ElevenLabsVoice

log = structlog.get_logger(__name__)

ROOM_S = 0.5
"""How long an utterance waits for an older context to end before it takes a fresh socket."""


@dataclass(frozen=True, slots=True)
class ElevenLabsAccess:
    """The key and the bare ws(s) origin, e.g. `wss://api.elevenlabs.io`."""

    api_key: str = field(repr=False)
    ws_url: str


class ElevenLabsSpeech:
    """`providers.base.TextToSpeech` of one call."""

    def __init__(self, config: ElevenLabsVoice, preferred: AudioFormat, access: ElevenLabsAccess) -> None:
        self.output = output_for(preferred)
        self.config = config
        url = speech_url(access.ws_url, config, self.output)
        self._endpoint = VendorEndpoint(url, {"xi-api-key": access.api_key}, VENDOR, CODE)
        self._numbers = count(1)
        self._socket: SpeechSocket | None = None
        self._sockets: set[SpeechSocket] = set()
        self._connecting: asyncio.Task[SpeechSocket] | None = None
        self._closed = False

    async def warm(self) -> None:
        """Open the socket. A failure is only logged: the first utterance tries again and tells."""
        try:
            await self._connected()
        except ProviderError as error:
            log.warning("speech_not_warmed", vendor=VENDOR, error=str(error))

    def open(self) -> SpeechStream:
        """Begin an utterance. A lost socket is opened again from now on, while its text is still being thought of."""
        if not self._closed and not (self._socket and self._socket.usable):
            self._connect_soon()
        return Utterance(self)

    async def begin(self, sink: ContextSink) -> tuple[SpeechSocket, str]:
        """A socket with room, and a fresh context of it, counted and routed to `sink`. Raises ProviderError."""
        socket = await self._connected()
        if not await socket.has_room(ROOM_S):
            log.warning("speech_contexts_exhausted", vendor=VENDOR)
            socket.retire()
            socket = await self._connected()
        context = f"u{next(self._numbers)}"
        socket.begin(context, sink)
        return socket, context

    async def aclose(self) -> None:
        """Close all sockets and await their readers. Idempotent."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await asyncio.gather(*[socket.aclose() for socket in self._sockets])

    async def _connected(self) -> SpeechSocket:
        if self._closed:
            raise unavailable("is no longer in use")
        if self._socket is not None and self._socket.usable:
            return self._socket
        connecting = self._connect_soon()
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # Either we are cancelled, or `aclose` cancelled the connecting under us.
            waiting = asyncio.current_task()
            if connecting.cancelled() and waiting is not None and not waiting.cancelling():
                raise unavailable("is no longer in use") from None
            raise

    def _connect_soon(self) -> asyncio.Task[SpeechSocket]:
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect(), name="elevenlabs-connect")
            # A failure nobody waited for is no news: the next utterance connects again and tells.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._connecting

    async def _connect(self) -> SpeechSocket:
        socket = SpeechSocket(await connect_vendor(self._endpoint), self._sockets.discard)
        self._sockets.add(socket)
        self._socket = socket
        return socket
