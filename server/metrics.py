"""What the gateway counts, for Prometheus. One registry an app; nothing here names an organisation or a caller."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipelines.events import EventSink
from pipelines.turn_times import TurnRecord
from wire.events import BotInterrupted, CallEnded, CallError, CallEvent, TurnEnd

REASONS = frozenset(
    {
        *("hangup", "client_hangup", "disconnected", "idle_timeout", "max_duration", "forwarded", "agent_removed"),
        *("agent_disconnected", "error", "no-answer", "busy", "failed", "canceled"),
    }
)
"""What is counted by name. Agents may give reasons of their own, which are nobody else's business."""
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 5.0)


class Metrics:
    """Counters and gauges of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.live = Gauge("gateway_calls_live", "Calls going on", registry=self._registry)
        self.calls = Counter("gateway_calls_total", "Calls that ended", ["reason"], registry=self._registry)
        self.refused = Counter(
            "gateway_calls_refused_total", "Calls that there was no room for", ["reason"], registry=self._registry
        )
        self.errors = Counter("gateway_provider_errors_total", "Vendor failures", ["code"], registry=self._registry)
        self.turns = Counter("gateway_turns_total", "Turns of users that ended", registry=self._registry)
        self.interruptions = Counter(
            "gateway_interruptions_total", "Bot messages that stopped early", ["reason"], registry=self._registry
        )
        self.turn_end = Histogram(
            "gateway_turn_end_seconds",
            "From the end of the user's speech to turn.end",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.turn_steps = Histogram(
            "gateway_turn_step_seconds",
            "From the end of the user's speech to each step of an answered turn, up to its first sound at the caller",
            ["step"],
            buckets=_SECONDS,
            registry=self._registry,
        )

    def gauge(self, name: str, what: str, read: Callable[[], float]) -> None:
        """A value that is read when somebody asks."""
        Gauge(name, what, registry=self._registry).set_function(read)

    @contextmanager
    def call(self) -> Generator[None]:
        """Counts a live call."""
        self.live.inc()
        try:
            yield
        finally:
            self.live.dec()

    def ended(self, reason: str) -> None:
        """Count a call that is over, or a dial that never became one."""
        self.calls.labels(reason if reason in REASONS else "other").inc()

    def watcher(self) -> EventSink:
        """Counts the events of one call."""
        return _CallWatcher(self)

    def turn_answered(self, turn: TurnRecord) -> None:
        """Count the steps of one turn. Label values are the names of `TurnRecord.moments`."""
        for step, ms in turn.moments().items():
            self.turn_steps.labels(step).observe(ms / 1000)

    def text(self) -> bytes:
        """The exposition that Prometheus reads."""
        return generate_latest(self._registry)


class _CallWatcher:
    """One call's events, counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def deliver(self, event: CallEvent) -> None:
        """Take one event."""
        metrics = self._metrics
        match event:
            case TurnEnd():
                metrics.turns.inc()
                metrics.turn_end.observe(event.latency_ms / 1000)
            case BotInterrupted():
                metrics.interruptions.labels(event.reason).inc()
            case CallError():
                metrics.errors.labels(event.code).inc()
            case CallEnded():
                metrics.ended(event.reason)
            case _:
                pass
