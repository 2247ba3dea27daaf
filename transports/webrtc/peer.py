"""One browser's connection: offer to answer, then a line for the call and a channel for its events.

A shell around aiortc; what it decides is only when the session begins and when it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, Protocol

import structlog
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidStateError

from pipelines.clock import Clock
from pipelines.medium import MediumSink
from pipelines.metronome import Metronome
from providers.base import PCM_16K
from transports.webrtc.channel import LABEL, EventChannel
from transports.webrtc.line import BrowserLine
from transports.webrtc.messages import Outgoing
from transports.webrtc.offer import Offer, OfferError
from transports.webrtc.track import VoiceTrack
from transports.webrtc.tuning import Network, bound_messages, listen_on, receive_directly

log = structlog.get_logger(__name__)

ANSWER_SECONDS: Final = 5.0
"""Then the offer cannot be answered: a page waits six."""
CLOSE_SECONDS: Final = 1.5
MAX_CHANNELS: Final = 8
"""A page has use for one."""
LOW_WATER: Final = 32 * 1024
"""Bytes left to send at which more are handed over."""


class NoPortError(Exception):
    """No UDP port is free to be reached at."""


class PeerState(Enum):
    """A connection's life."""

    NEW = auto()
    ANSWERED = auto()
    CONNECTED = auto()
    CLOSED = auto()


class Session(Protocol):
    """What a peer tells whoever asked for it. Nothing here blocks."""

    def on_connected(self) -> None:
        """Audio can flow. Comes at most once."""
        ...

    def on_lost(self, reason: str) -> None:
        """The browser is gone: it said goodbye (`client_hangup`) or was not heard of (`connection_lost`). At most once,
        and not after `hang_up`."""
        ...

    def on_frame(self, frame: str | bytes) -> None:
        """The page sent something on the channel."""
        ...


class Peer:
    """A `Medium` over WebRTC."""

    audio = PCM_16K

    def __init__(self, clock: Clock, metronome: Metronome, network: Network, session: Session) -> None:
        self._session = session
        self._network = network
        self._track = VoiceTrack()
        self.line = BrowserLine(clock, metronome, self._track.put)
        self.channel = EventChannel()
        self.state = PeerState.NEW
        # Without a configuration aiortc asks a public server for our address. Ours is told, not found out.
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._channels = 0

    async def answer(self, offer: Offer) -> str:
        """The answer, all addresses in it. Raises OfferError for what cannot be answered, NoPortError when
        there is no port for it; the peer is then closed."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._negotiate(offer)
        except TimeoutError:
            await self.hang_up()
            raise OfferError("sdp could not be answered in time") from None
        except BaseException as error:
            await self.hang_up()
            if not isinstance(error, Exception) or isinstance(error, NoPortError):
                raise
            # aiortc raises whatever its parsing of a stranger's text runs into; none of it is worth telling.
            log.info("offer_unusable", error=type(error).__name__)
            raise OfferError("sdp cannot be answered") from error
        self.state = PeerState.ANSWERED
        return offer.complete(answer)

    def start(self, sink: MediumSink) -> None:
        """The call begins: its audio flows."""
        self.line.start(sink)

    # --- Medium ---

    def send_audio(self, audio: bytes) -> None:
        """Hand over 16 kHz PCM16, to be played after all that was sent before."""
        self.line.send_audio(audio)

    def send_mark(self, name: str) -> None:
        """Ask for an echo when everything sent so far has left."""
        self.line.send_mark(name)

    def send_clear(self) -> None:
        """Let nothing of what was sent leave any more."""
        self.line.send_clear()

    async def hang_up(self) -> None:
        """Let the last frames of the channel leave, then close. `on_lost` does not come afterwards."""
        was, self.state = self.state, PeerState.CLOSED
        self.line.stop()
        if was is PeerState.CONNECTED:
            await self.channel.drain()
        self.channel.close()
        self._track.stop()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._connection.close()
        except TimeoutError:
            log.warning("peer_close_late")
        except Exception as error:  # noqa: BLE001 - aiortc cannot close what an odd offer has left half made
            log.warning("peer_close_failed", error=type(error).__name__)

    @property
    def heard_at(self) -> float:
        """When audio last came (loop time)."""
        return self.line.heard_at

    def deafen(self, *, on: bool) -> None:
        """Let nothing of the caller's audio through, or let it through again."""
        self.line.deaf = on

    def tell(self, frames: list[Outgoing]) -> None:
        """Send these to the page."""
        for frame in frames:
            self._guarded(self.channel.send, frame)

    # --- aiortc ---

    async def _negotiate(self, offer: Offer) -> str:
        connection = self._connection
        connection.on("connectionstatechange", self._on_state)
        connection.on("datachannel", self._on_channel)
        transceiver = connection.addTransceiver(self._track, "sendrecv")
        codecs = RTCRtpSender.getCapabilities("audio").codecs
        transceiver.setCodecPreferences([codec for codec in codecs if codec.mimeType.lower() == "audio/opus"])
        receive_directly(transceiver, self.line.receive)
        await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        listen_on(transceiver, self._network)
        bound_messages(connection, lambda: self._lose("disconnected"))
        await connection.setLocalDescription(await connection.createAnswer())
        sdp = connection.localDescription.sdp
        if "\na=candidate:" not in sdp:
            # Nobody could ever reach us.
            raise NoPortError
        return sdp

    def _on_state(self) -> None:
        state = self._connection.connectionState
        if self.state is PeerState.ANSWERED and state == "connected":
            self.state = PeerState.CONNECTED
            self._guarded(self._session.on_connected)
        elif self.state in (PeerState.ANSWERED, PeerState.CONNECTED) and state in ("failed", "closed"):
            self.state = PeerState.CLOSED
            self._guarded(self._session.on_lost, "client_hangup" if state == "closed" else "connection_lost")

    def _on_channel(self, channel: RTCDataChannel) -> None:
        self._channels += 1
        if self._channels > MAX_CHANNELS:
            self._lose()
        elif channel.label == LABEL and not self.channel.is_open and self.state is not PeerState.CLOSED:
            channel.bufferedAmountLowThreshold = LOW_WATER
            channel.on("message", self._on_message)
            channel.on("bufferedamountlow", lambda: self._guarded(self.channel.flush))
            channel.on("close", self.channel.close)
            self._guarded(self.channel.open, channel)

    def _on_message(self, frame: str | bytes) -> None:
        self._guarded(self._session.on_frame, frame)

    def _guarded(self, told: Callable[..., None], *args: object) -> None:
        """Run what a fact causes. A fault of ours ends this session and reaches nobody else's."""
        try:
            told(*args)
        except InvalidStateError:
            # The channel closed a moment ago; the connection will tell.
            self.channel.close()
        except Exception:
            log.exception("peer_failed")
            self._lose()

    def _lose(self, reason: str = "error") -> None:
        if self.state is not PeerState.CLOSED:
            self.state = PeerState.CLOSED
            self._session.on_lost(reason)
