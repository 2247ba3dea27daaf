"""The gateway's voice as a media track: packets that are encoded already, handed to whoever sends them."""

from __future__ import annotations

import asyncio
from collections import deque
from fractions import Fraction
from typing import Any, Final

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.packet import Packet

from transports.webrtc.uplink import CLOCK_RATE

MAX_WAITING: Final = 25
"""Packets that nobody has sent yet; then the oldest go: late voice is of no use."""
STEP: Final = CLOCK_RATE // 50
"""Of the time stamp, from one frame to the next."""
_TIME_BASE: Final = Fraction(1, CLOCK_RATE)


class VoiceTrack(MediaStreamTrack):
    """Gives packets in the order they were put, each as soon as it is there."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._packets: deque[tuple[bytes, int]] = deque(maxlen=MAX_WAITING)
        self._waiter: asyncio.Future[None] | None = None

    def put(self, payload: bytes, number: int) -> None:
        """Send this next: frame `number` of the session, in Opus."""
        self._packets.append((payload, number))
        self._wake()

    async def recv(self) -> Packet[Any]:
        """The next packet. Raises MediaStreamError once the track has stopped."""
        while not self._packets:
            if self.readyState != "live":
                raise MediaStreamError
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        payload, number = self._packets.popleft()
        packet: Packet[Any] = Packet(payload)
        packet.pts = number * STEP
        packet.time_base = _TIME_BASE
        return packet

    def stop(self) -> None:
        """No more is sent."""
        super().stop()
        self._packets.clear()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
