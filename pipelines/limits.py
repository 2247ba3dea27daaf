"""How long a call may last and how long it may stay silent. Pure: every method is told the time (seconds).

Two watchdogs run from the start of the call (behaviour §6.8):

    silence ──── T−W ───────────── T ───────────────── T+G ──────── hang-up
                idle_warning      idle_warning(G)      session.timeout   (after the goodbye)

The silence stands still while it is frozen: while the bot speaks or is about to, a reply or a tool is at work, the user
speaks, the call is muted or held. Only the user's activity sets it back to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from wire.config import SessionLimits

_SLACK = 1e-6


class TimeoutReason(StrEnum):
    """Why a call times out, in the wire's words."""

    IDLE = "idle_timeout"
    MAX_DURATION = "max_duration"


@dataclass(frozen=True, slots=True)
class IdleWarning:
    """Nobody has spoken for a while: `remaining_seconds` until the next step."""

    remaining_seconds: int
    idle_timeout_seconds: int


@dataclass(frozen=True, slots=True)
class Timeout:
    """The call is to end. Nothing follows."""

    reason: TimeoutReason


class _Stage(IntEnum):
    """How far the present silence has come."""

    QUIET = 0
    WARNED = 1
    LAST_WARNED = 2


class SessionClock:
    """The watchdogs of one call that starts `now`. All times come in order."""

    def __init__(self, limits: SessionLimits, now: float) -> None:
        self._limits = limits
        self._started = now
        self._silence = 0.0
        self._since = now
        self._frozen = False
        self._stage = _Stage.QUIET
        self._over = False

    def configure(self, limits: SessionLimits, now: float) -> None:
        """New limits from now on; the silence and the duration so far count. A warning already given stays given."""
        self._count(now)
        self._limits = limits

    def frozen(self, frozen: bool, now: float) -> None:
        """The silence stands still (True) or runs (False). Idempotent."""
        self._count(now)
        self._frozen = frozen

    def user_activity(self, now: float) -> None:
        """The user has said something or pressed a key: the silence begins anew, and with it the warnings."""
        self._count(now)
        self._silence = 0.0
        self._stage = _Stage.QUIET

    def advance(self, now: float) -> list[IdleWarning | Timeout]:
        """What became due, in the order of its time. After a `Timeout` nothing more comes."""
        due: list[IdleWarning | Timeout] = []
        while not self._over:
            at = self.next_deadline(now)
            if at is None or at > now + _SLACK:
                break
            due.append(self._step(at))
        return due

    def next_deadline(self, now: float) -> float | None:
        """When `advance` has something to say if nothing else happens; may lie in the past. None: never."""
        if self._over:
            return None
        ends = self._ends()
        idle = self._idle()
        return min((at for at in (ends, idle) if at is not None), default=None)

    def _ends(self) -> float | None:
        longest = self._limits.max_duration_seconds
        return self._started + longest if longest > 0 else None

    def _idle(self) -> float | None:
        """When the silence reaches its next step; None while it is frozen or switched off."""
        limit = self._limits.idle_timeout_seconds
        if self._frozen or limit <= 0:
            return None
        return self._since + max(0.0, self._next_threshold(limit) - self._silence)

    def _next_threshold(self, limit: int) -> int:
        grace = max(0, self._limits.idle_grace_seconds)
        if self._stage is _Stage.QUIET and (warning := self._warning(limit)):
            return limit - warning
        return limit if self._stage is not _Stage.LAST_WARNED else limit + grace

    def _warning(self, limit: int) -> int:
        return max(0, min(self._limits.idle_warning_seconds, limit - 1))

    def _step(self, at: float) -> IdleWarning | Timeout:
        if at == self._ends():
            self._over = True
            return Timeout(TimeoutReason.MAX_DURATION)
        limit = self._limits.idle_timeout_seconds
        grace = max(0, self._limits.idle_grace_seconds)
        if self._stage is _Stage.QUIET and (warning := self._warning(limit)):
            self._stage = _Stage.WARNED
            return IdleWarning(warning, limit)
        if self._stage is not _Stage.LAST_WARNED and grace:
            self._stage = _Stage.LAST_WARNED
            return IdleWarning(grace, limit)
        self._over = True
        return Timeout(TimeoutReason.IDLE)

    def _count(self, now: float) -> None:
        if not self._frozen:
            self._silence += now - self._since
        self._since = now
