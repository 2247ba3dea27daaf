"""The calls that are alive, as the agents' side sees them: who owns each, and how to tell it something.

A call and its agent's socket meet only here, so neither needs to sit in the same process as the other one day.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from server.store.base import AgentKey
from wire.commands import CallCommand
from wire.events import Event


class EventSink(Protocol):
    """Where an agent's events go."""

    def deliver(self, event: Event) -> None:
        """Take one event. Never blocks, never raises."""
        ...


class LiveCall(Protocol):
    """One call. None of these blocks or raises."""

    @property
    def call_id(self) -> str:
        """The id on the wire."""
        ...

    @property
    def org_id(self) -> str:
        """Whose call."""
        ...

    @property
    def slug(self) -> str:
        """Whose agent's call (canonical)."""
        ...

    def attach(self, sink: EventSink, agent_id: str) -> None:
        """The agent is back: events go there from now on, `call.started{resumed:true}` first (protocol §1.4)."""
        ...

    def detach(self) -> None:
        """The agent's socket is gone; it may come back."""
        ...

    def command(self, command: CallCommand) -> None:
        """Take one command; they come in the order the client sent them."""
        ...

    def end(self, reason: str) -> None:
        """Hang up, with this reason in `call.ended`. Idempotent."""
        ...


class LiveCalls:
    """All live calls of this process. An id is that of one organisation: clients choose some of them (`llm.chat`), and
    what one organisation calls its conversations is nothing to another."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], LiveCall] = {}
        self._by_agent: dict[AgentKey, dict[str, LiveCall]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: LiveCall) -> None:
        """A call begins. Its id must be new."""
        if (call.org_id, call.call_id) in self._calls:
            raise ValueError(f"call {call.call_id} is already live")
        self._calls[call.org_id, call.call_id] = call
        self._by_agent.setdefault(AgentKey(call.org_id, call.slug), {})[call.call_id] = call

    def remove(self, org_id: str, call_id: str) -> None:
        """A call is over; unknown is fine."""
        call = self._calls.pop((org_id, call_id), None)
        if call is None:
            return
        key = AgentKey(call.org_id, call.slug)
        of_agent = self._by_agent[key]
        del of_agent[call_id]
        if not of_agent:
            del self._by_agent[key]

    def find(self, org_id: str, call_id: str) -> LiveCall | None:
        """The organisation's live call of that id."""
        return self._calls.get((org_id, call_id))

    def of_agent(self, agent: AgentKey) -> list[LiveCall]:
        """All calls of one agent, oldest first."""
        return list(self._by_agent.get(agent, {}).values())

    def __iter__(self) -> Iterator[LiveCall]:
        return iter(list(self._calls.values()))
