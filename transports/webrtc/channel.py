"""The data channel `events` of one session: what waits to be told.

The channel often opens after the first facts are known; until then they wait. A page that does not keep up loses what
is worth least, never the order of the rest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from transports.webrtc.messages import Outgoing

LABEL: Final = "events"
MAX_WAITING: Final = 500
"""Frames that have not been handed to the network."""
MAX_UNSENT: Final = 128 * 1024
"""Bytes that were, and have not left; more are not handed over."""
FLUSH_SECONDS: Final = 0.25
"""The last frames get so long to leave."""
_SETTLE_SECONDS: Final = 0.05


class Wire(Protocol):
    """An open data channel."""

    @property
    def bufferedAmount(self) -> int:  # noqa: N802 - the name in the browser's API, and in aiortc's
        """Bytes that have not left."""
        ...

    def send(self, data: str) -> None:
        """Send one text frame. Raises when the channel has closed."""
        ...


class EventChannel:
    """Frames to the page, in order."""

    def __init__(self) -> None:
        self._waiting: deque[Outgoing] = deque()
        self._wire: Wire | None = None

    def open(self, wire: Wire) -> None:
        """The channel is there: all that waited goes first."""
        self._wire = wire
        self.flush()

    def close(self) -> None:
        """The channel is gone; what waits is lost."""
        self._wire = None
        self._waiting.clear()

    @property
    def is_open(self) -> bool:
        """True while the page can be told something."""
        return self._wire is not None

    @property
    def waiting(self) -> int:
        """Frames that have not been handed to the network."""
        return len(self._waiting)

    def send(self, frame: Outgoing) -> None:
        """Queue one frame."""
        if len(self._waiting) >= MAX_WAITING:
            self._give_up_one()
        self._waiting.append(frame)
        self.flush()

    def flush(self) -> None:
        """Hand over what the network takes."""
        wire = self._wire
        while wire is not None and self._waiting and wire.bufferedAmount < MAX_UNSENT:
            wire.send(self._waiting.popleft().text)

    async def drain(self) -> None:
        """Wait until all has left, at most FLUSH_SECONDS."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                while self._wire is not None and (self._waiting or self._wire.bufferedAmount):
                    self.flush()
                    await asyncio.sleep(0.01)
                if self._wire is not None:
                    await asyncio.sleep(_SETTLE_SECONDS)
        except TimeoutError:
            pass

    def _give_up_one(self) -> None:
        least = min(frame.weight for frame in self._waiting)
        for place, frame in enumerate(self._waiting):
            if frame.weight is least:
                del self._waiting[place]
                return
