"""Keeps a call within its session limits: warns, says that time is up, and leaves room for a goodbye."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.events import CallEvents
from pipelines.limits import IdleWarning, SessionClock
from wire.config import SessionLimits
from wire.events import SessionIdleWarning, SessionTimeout

LOOK_EVERY = 0.1
"""Seconds between looks."""
GOODBYE_STARTS = 2.0
"""A goodbye must be on its way so soon after `session.timeout` …"""
GOODBYE_ENDS = 10.0
"""… and over by then (protocol §3.17)."""


class SessionWatch:
    """The limits of one call. `busy` tells whether silence counts now; `speaking` whether a goodbye is being said;
    `end` hangs up."""

    def __init__(
        self, limits: SessionLimits, events: CallEvents, busy: Callable[[], bool], speaking: Callable[[], bool]
    ) -> None:
        self._limits = limits
        self._events = events
        self._busy = busy
        self._speaking = speaking
        self._clock: SessionClock | None = None
        self._due = 0.0
        self._timed_out_at: float | None = None
        self._reason = ""

    def start(self, now: float) -> None:
        """The call begins."""
        self._clock = SessionClock(self._limits, now)

    def configure(self, limits: SessionLimits, now: float) -> None:
        """Other limits from now on; the silence and the duration so far count."""
        self._limits = limits
        if self._clock is not None:
            self._clock.configure(limits, now)

    def user_activity(self, now: float) -> None:
        """The user said something or pressed a key."""
        if self._clock is not None:
            self._clock.user_activity(now)

    def beat(self, now: float) -> str | None:
        """Called every tick; the reason once the call has to end now."""
        if now < self._due or self._clock is None:
            return None
        self._due = now + LOOK_EVERY
        if self._timed_out_at is not None:
            return self._after_timeout(now - self._timed_out_at)
        self._clock.frozen(self._busy(), now)
        for due in self._clock.advance(now):
            if isinstance(due, IdleWarning):
                self._events.publish(
                    SessionIdleWarning(
                        remaining_seconds=due.remaining_seconds, idle_timeout_seconds=due.idle_timeout_seconds
                    )
                )
            else:
                self._timed_out_at, self._reason = now, due.reason.value
                self._events.publish(SessionTimeout(reason=self._reason))
        return None

    def _after_timeout(self, since: float) -> str | None:
        if since >= GOODBYE_ENDS or (since >= GOODBYE_STARTS and not self._speaking()):
            return self._reason
        return None
