"""What waits to be sent to one agent's socket.

Bounded (protocol §4.16): a client that reads too slowly first loses loudness figures, then interim texts and words,
and in the end its connection, so that media never waits for a control socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import msgspec

from wire.events import AudioMetrics, BotWord, Event, UserSpeaking

METRICS_LIMIT: Final = 4 * 1024 * 1024
"""Bytes waiting from which on `audio.metrics` are dropped."""
INTERIM_LIMIT: Final = 6 * 1024 * 1024
"""Bytes waiting from which on `user.speaking` and `bot.word` are dropped, too."""
HARD_LIMIT: Final = 16 * 1024 * 1024
"""Bytes waiting that are too many: the client is cut off."""

_encoder: Final = msgspec.json.Encoder()


class Outbox:
    """Frames in order, each encoded once. `put` never blocks; one writer awaits `next`."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._ready = asyncio.Event()
        self._closed = False
        self.size = 0
        """Bytes waiting."""
        self.dropped = 0
        """Frames left out so far."""

    def __len__(self) -> int:
        """Frames waiting."""
        return len(self._frames)

    def put(self, event: Event) -> bool:
        """Queue an event (or drop it by the policy above). False: too much is waiting, the client must go."""
        if self._closed or self._expendable(event):
            self.dropped += 1
            return True
        frame = _encoder.encode(event)
        if self.size + len(frame) > HARD_LIMIT:
            return False
        self._frames.append(frame)
        self.size += len(frame)
        self._ready.set()
        return True

    def close(self, *, discard: bool = False) -> None:
        """Take nothing more; what waits is still sent, unless `discard`."""
        self._closed = True
        if discard:
            self.dropped += len(self._frames)
            self._frames.clear()
            self.size = 0
        self._ready.set()

    async def next(self) -> bytes | None:
        """The next frame; None when closed and empty."""
        while not self._frames:
            if self._closed:
                return None
            self._ready.clear()
            await self._ready.wait()
        frame = self._frames.popleft()
        self.size -= len(frame)
        return frame

    def _expendable(self, event: Event) -> bool:
        if self.size < METRICS_LIMIT:
            return False
        return isinstance(event, AudioMetrics) or (
            self.size >= INTERIM_LIMIT and isinstance(event, UserSpeaking | BotWord)
        )
