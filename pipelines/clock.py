"""The one clock of a process. Monotonic seconds decide; wall time only stamps.

Everything takes its time from the running loop, so that a loop whose clock jumps (tests) moves all of it together.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def wall(self) -> float:
        """Epoch seconds, moving exactly as `now` does."""
        ...


class LoopClock:
    """The running event loop's clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wall_offset = time.time() - self._loop.time()

    def now(self) -> float:
        """Monotonic seconds of the loop."""
        return self._loop.time()

    def wall(self) -> float:
        """Epoch seconds."""
        return self._loop.time() + self._wall_offset
