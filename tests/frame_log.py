"""What came over a socket, in order, and waiting for the next frame of a kind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 20.0

Frame = dict[str, Any]


@dataclass(kw_only=True)
class FrameLog:
    """Writes down every frame. `over` says why no more will come; empty while they may."""

    frames: list[Frame] = field(default_factory=list[Frame])
    over: str = ""
    _seen: int = 0
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, frame: Frame) -> None:
        """One more."""
        self.frames.append(frame)
        self._more.set()

    def end(self, why: str) -> None:
        """No more: whoever waits fails at once."""
        self.over = why
        self._more.set()

    async def more(self) -> None:
        """Until something has come that was not there."""
        self._more.clear()
        await self._more.wait()

    async def wait(self, event: str, patience: float = PATIENCE, **fields: object) -> Frame:
        """The next frame of that kind (and with those fields) after the last one waited for."""
        async with asyncio.timeout(patience):
            while True:
                while self._seen < len(self.frames):
                    frame = self.frames[self._seen]
                    self._seen += 1
                    if frame["event"] == event and all(frame.get(key) == value for key, value in fields.items()):
                        return frame
                assert not self.over, f"{self.over} before {event}: {self.frames}"
                await self.more()

    def forget(self) -> None:
        """Throw away what was written down."""
        self.frames.clear()
        self._seen = 0
