"""Calls that ring before they are answered, because their channel wants it (behaviour §3.3).

The agent's program is told of each and says whether to take it; whoever asked the carrier's question waits meanwhile.
Says it nothing in time, the call is taken: programs without an opinion exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum

import structlog

from pipelines.clock import Clock
from pipelines.events import CallEvents
from pipelines.parts import CallFacts
from server.agents.calls import EventSink
from server.agents.registry import AgentRegistry
from server.store.base import AgentKey
from wire.commands import CallAccept, CallCommand, CallHangup, CallReject
from wire.events import CallRejected, CallRinging

log = structlog.get_logger(__name__)


class Verdict(Enum):
    """What becomes of a ringing call."""

    ACCEPTED = "accepted"
    BUSY = "busy"
    REJECTED = "rejected"
    CALLER_LEFT = "caller_left"
    """The caller hung up, or the carrier no longer waits for an answer."""
    AGENT_LEFT = "agent_left"
    """Nobody is there to take it."""
    CLOSING = "closing"
    """The gateway goes down."""


class RingingCall:
    """A call as its agent sees it before it is answered: a `LiveCall` of the registry."""

    def __init__(self, facts: CallFacts, clock: Clock, on_settled: Callable[[RingingCall], None]) -> None:
        self.facts = facts
        self.settled: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.waiting = 0
        """Who waits for the verdict: the carrier asks again when it lost its question's connection."""
        self.timer: asyncio.TimerHandle | None = None
        self._on_settled = on_settled
        # The call itself begins with frame 1 (protocol §3.2).
        self._events = CallEvents(facts.call_id, clock, first=0)

    @property
    def call_id(self) -> str:
        """The id on the wire."""
        return self.facts.call_id

    @property
    def org_id(self) -> str:
        """Whose call."""
        return self.facts.org_id

    @property
    def slug(self) -> str:
        """Whose agent's call."""
        return self.facts.slug

    def attach(self, sink: EventSink, agent_id: str) -> None:
        """Tell the agent's program, also when it has come back: it forgot."""
        self._events.attach_owner(sink, agent_id)
        self._events.publish(CallRinging(from_=self.facts.from_, to=self.facts.to, direction=self.facts.direction))

    def detach(self) -> None:
        """The agent's socket is gone; it may come back in time."""
        self._events.detach_owner()

    def command(self, command: CallCommand) -> None:
        """The first answer counts."""
        match command:
            case CallAccept():
                self.settle(Verdict.ACCEPTED)
            case CallReject():
                self._reject(Verdict.REJECTED if command.reason == "rejected" else Verdict.BUSY)
            case CallHangup():
                self._reject(Verdict.REJECTED)
            case _:
                pass

    def end(self, reason: str) -> None:
        """The agent is no more."""
        self.settle(Verdict.AGENT_LEFT)

    def settle(self, verdict: Verdict) -> None:
        """That is what becomes of it. Idempotent: the first verdict stays."""
        if self.settled.done():
            return
        self.settled.set_result(verdict)
        self._events.close()
        if self.timer is not None:
            self.timer.cancel()
        self._on_settled(self)
        log.info("call_screened", call_id=self.call_id, agent=self.slug, org=self.org_id, verdict=verdict.value)

    def _reject(self, verdict: Verdict) -> None:
        self._events.publish(CallRejected(reason=verdict.value))
        self.settle(verdict)


class Screening:
    """All calls of this process that ring at their agents. They take `patience` seconds at most."""

    def __init__(self, registry: AgentRegistry, patience: float) -> None:
        self._registry = registry
        self._patience = patience
        self._ringing: dict[str, RingingCall] = {}

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._ringing

    async def verdict(self, facts: CallFacts) -> Verdict:
        """Let the call ring, or go on with it, until it is known what becomes of it. A caller whom nobody waits for any
        more, because all who did were cancelled, has left."""
        ringing = self._ringing.get(facts.call_id) or self._ring(facts)
        if ringing is None:
            return Verdict.AGENT_LEFT
        ringing.waiting += 1
        try:
            return await asyncio.shield(ringing.settled)
        finally:
            ringing.waiting -= 1
            if not ringing.waiting:
                ringing.settle(Verdict.CALLER_LEFT)

    def caller_left(self, call_id: str) -> None:
        """The caller hung up: nobody is told. Unknown is fine."""
        ringing = self._ringing.get(call_id)
        if ringing is not None:
            ringing.settle(Verdict.CALLER_LEFT)

    def close(self) -> None:
        """Nothing rings any more."""
        for ringing in list(self._ringing.values()):
            ringing.settle(Verdict.CLOSING)

    def _ring(self, facts: CallFacts) -> RingingCall | None:
        ringing = RingingCall(facts, self._registry.clock, self._settled)
        try:
            agent = self._registry.admit(ringing)
        except LookupError:
            return None
        self._ringing[facts.call_id] = ringing
        ringing.timer = asyncio.get_running_loop().call_later(self._patience, self._time_is_up, ringing)
        if agent.link is not None:
            ringing.attach(agent.link, agent.agent_id)
        return ringing

    def _time_is_up(self, ringing: RingingCall) -> None:
        agent = self._registry.find(AgentKey(ringing.org_id, ringing.slug))
        there = agent is not None and agent.online
        ringing.settle(Verdict.ACCEPTED if there else Verdict.AGENT_LEFT)

    def _settled(self, ringing: RingingCall) -> None:
        del self._ringing[ringing.call_id]
        self._registry.calls.remove(ringing.org_id, ringing.call_id)
