"""The call's one ordered stream of facts.

Whoever states a fact calls `publish`; it is stamped (call id, time, number) and handed to every subscriber before
`publish` returns, so the order of facts is the order of the wire. Subscribers never block: they queue, drop or refuse
by their own policy. After `close` nothing leaves any more, which is what keeps `call.ended` the last frame
(protocol §3.1, law 2).
"""

from __future__ import annotations

from typing import Protocol

from pipelines.clock import Clock
from wire.events import CallEvent, SpeechEnded, SpeechStarted, TurnContinued, TurnResumed
from wire.page_events import AudienceEvent


class EventSink(Protocol):
    """Somebody who wants to know: the agent's socket, a data channel, the transcript on a terminal."""

    def deliver(self, event: CallEvent) -> None:
        """Take one event. Must not block and must not raise."""
        ...


class CallEvents:
    """Stamps and distributes the events of one call."""

    def __init__(self, call_id: str, clock: Clock, first: int = 1) -> None:
        """`first` is the number of the first event."""
        self._call_id = call_id
        self._clock = clock
        self._seq = first - 1
        self._closed = False
        self._owner: EventSink | None = None
        self._owner_name = ""
        self._watchers: list[EventSink] = []

    @property
    def closed(self) -> bool:
        """True once the last event has been published."""
        return self._closed

    def attach_owner(self, sink: EventSink, agent_id: str) -> None:
        """Events go to this agent socket from now on, which calls the agent `agent_id`."""
        self._owner = sink
        self._owner_name = agent_id

    def detach_owner(self) -> None:
        """The agent's socket is gone; events without watchers are lost, which the wire allows."""
        self._owner = None

    def watch(self, sink: EventSink) -> None:
        """Also tell this one, after the owner."""
        self._watchers.append(sink)

    def publish(self, event: CallEvent) -> None:
        """State a fact. Silently ignored after `close`."""
        if self._closed:
            return
        for_owner = not isinstance(event, AudienceEvent)
        # The agent can tell from the numbers that it has missed nothing: what it is not told has none of its own.
        self._seq += for_owner
        event.agent_id = self._owner_name
        event.call_id = event.session_id = self._call_id
        event.seq = self._seq
        event.ts = self._clock.wall()
        if isinstance(event, SpeechStarted | SpeechEnded | TurnResumed | TurnContinued):
            event.timestamp = event.ts
        if self._owner is not None and for_owner:
            self._owner.deliver(event)
        for watcher in self._watchers:
            watcher.deliver(event)

    def close(self) -> None:
        """Nothing is published after this."""
        self._closed = True
