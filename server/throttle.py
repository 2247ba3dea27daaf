"""Token buckets: how often something may happen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """`burst` at once, then `rate` a second. Times are monotonic seconds, given by the caller."""

    rate: float
    burst: float
    _tokens: float = -1.0
    _at: float = 0.0

    def take(self, now: float) -> bool:
        """Whether it may happen now; if so it has."""
        tokens = self.burst if self._tokens < 0 else min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        self._tokens = tokens - 1 if tokens >= 1 else tokens
        return tokens >= 1

    def wait(self) -> float:
        """After a refusal: in how many seconds it may happen."""
        return (1.0 - self._tokens) / self.rate

    def full(self, now: float) -> bool:
        """Whether nothing has happened for so long that this bucket may be forgotten."""
        return self._tokens < 0 or self._tokens + (now - self._at) * self.rate >= self.burst


class Failures:
    """Counts failures by source (an address, the beginning of a key) and says when one comes too often.

    At most `_SOURCES` sources are remembered: the quiet ones are forgotten first, then the oldest.
    """

    _SOURCES = 4096

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def too_many(self, source: str, now: float) -> bool:
        """Note one failure of that source; True if it should be slowed down."""
        if source not in self._buckets and len(self._buckets) >= self._SOURCES:
            self._forget(now)
        bucket = self._buckets.setdefault(source, TokenBucket(self._rate, self._burst))
        return not bucket.take(now)

    def _forget(self, now: float) -> None:
        busy = [(source, bucket) for source, bucket in self._buckets.items() if not bucket.full(now)]
        self._buckets = dict(busy[-self._SOURCES // 2 :])


class Rates:
    """How often each source may do something: so many a minute, of them `burst` at once. A rate of 0 is no limit.

    Sources are remembered as in `Failures`.
    """

    _SOURCES = 4096

    def __init__(self, per_minute: float, burst: float) -> None:
        self._per_minute = per_minute
        self._burst = burst
        self._buckets: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, source: str, now: float) -> float:
        """0.0 if that source may do it now, and then it has; else in how many seconds it may."""
        if self._per_minute <= 0:
            return 0.0
        if source not in self._buckets and len(self._buckets) >= self._SOURCES:
            busy = [(known, bucket) for known, bucket in self._buckets.items() if not bucket.full(now)]
            self._buckets = dict(busy[-self._SOURCES // 2 :])
        bucket = self._buckets.setdefault(source, TokenBucket(self._per_minute / 60.0, self._burst))
        return 0.0 if bucket.take(now) else bucket.wait()
