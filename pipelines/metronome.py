"""One shared 20 ms tick for all calls of a process.

A timer per call costs a wake-up per call; one tick that walks the calls with something to do costs one. The schedule
is absolute: a late tick does not shift the next ones. It runs only while somebody listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from math import exp

import structlog

from pipelines.clock import Clock

log = structlog.get_logger(__name__)

TICK = 0.02
"""Seconds. One telephone frame."""


class Metronome:
    """Calls each joined function every tick with the current time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._members: dict[object, tuple[Callable[[float], None], Context]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0
        self.lag = 0.0
        """Seconds by which ticks come late, on the average of the last second: the event loop's lag, for metrics and
        admission. 0 while nobody listens."""

    def join(self, key: object, beat: Callable[[float], None]) -> None:
        """Call `beat(now)` every tick until `leave(key)`. Joining again replaces."""
        # Each beat runs in the context it joined from, so that what it logs names its own call.
        self._members[key] = (beat, copy_context())
        if self._timer is None:
            self._next = self._clock.now() + TICK
            self._arm()

    def leave(self, key: object) -> None:
        """Stop. Idempotent."""
        self._members.pop(key, None)

    def close(self) -> None:
        """Stop for good."""
        self._members.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_at(self._next, self._tick)

    def _tick(self) -> None:
        now = self._clock.now()
        late = now - self._next
        # The longer a tick took to come, the more of that second it stands for.
        self.lag += (late - self.lag) * (1 - exp(-(TICK + late)))
        for key, (beat, context) in list(self._members.items()):
            try:
                context.run(beat, now)
            except Exception:
                # One call's fault must not stop the pacing of all others.
                self._members.pop(key, None)
                log.exception("beat_failed")
        if not self._members:
            self._timer = None
            self.lag = 0.0
            return
        self._next += TICK
        if self._next < now:
            # More than a tick behind: the missed ticks are gone, their work was done just now.
            self._next = now + TICK
        self._arm()
