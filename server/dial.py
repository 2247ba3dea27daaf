"""One dial, from the agent's command until it is a call or never will be (behaviour §3.4).

The carrier knows it by our id (in the callback's address and in the stream's parameters) before we know the carrier's.
Whatever tells of the carrier's call first - its answer, a callback, the media stream - makes it known to the agent.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import Protocol

import msgspec
import structlog

from pipelines.clock import Clock
from pipelines.greeting import Opening
from server.agents.calls import EventSink, LiveCalls
from server.calls import ExpectedCall
from server.dial_progress import DialProgress, DialState, Outcome
from wire.commands import CallCommand, CallHangup
from wire.events import CallDialing, CallEvent

log = structlog.get_logger(__name__)

CANCELED = Outcome("canceled")


class Desk(Protocol):
    """Who looks after all dials."""

    clock: Clock
    live: LiveCalls

    def over(self, dial: Dial, outcome: Outcome, *, told: bool) -> None:
        """It will never be a call. `told`: by the carrier itself, which needs no word of ours then."""
        ...


class Dial:
    """A `LiveCall`, so that its agent may hang up, go and come back. Nothing here blocks."""

    def __init__(self, expected: ExpectedCall, opening: Opening | None, desk: Desk) -> None:
        """`expected` carries our own id until the carrier's is known."""
        self.dial_id = expected.call_id
        self.secret = secrets.token_urlsafe(24)
        self.expected = expected
        self.opening = opening
        self.progress = DialProgress(desk.clock.now())
        self._desk = desk
        self._sink: EventSink | None = None
        self._agent_id = ""
        self._timer: asyncio.TimerHandle | None = None
        self._log = log.bind(dial_id=self.dial_id, agent=self.slug, org=self.org_id)

    def start(self, sink: EventSink | None, agent_id: str) -> None:
        """It is on its way: it can be reached, and it has a deadline."""
        self._sink, self._agent_id = sink, agent_id
        self._desk.live.add(self)
        self._watch()

    # --- LiveCall ---

    @property
    def call_id(self) -> str:
        """The carrier's id, ours until that is known."""
        return self.expected.call_id

    @property
    def org_id(self) -> str:
        """Whose dial."""
        return self.expected.facts.org_id

    @property
    def slug(self) -> str:
        """Whose agent's dial."""
        return self.expected.facts.slug

    @property
    def placed(self) -> bool:
        """Whether the carrier's id is known."""
        return self.call_id != self.dial_id

    def attach(self, sink: EventSink, agent_id: str) -> None:
        """The agent is back: it hears once more that somebody's telephone rings."""
        self._sink, self._agent_id = sink, agent_id
        if self.placed:
            self._announce()

    def detach(self) -> None:
        """The agent's socket is gone; it may come back."""
        self._sink = None

    def command(self, command: CallCommand) -> None:
        """Hanging up is all that can be done with a telephone that rings."""
        if isinstance(command, CallHangup):
            self.end("client_hangup")

    def end(self, reason: str) -> None:
        """Call it off; whyever, its agent hears `canceled`. Idempotent."""
        if self.progress.pending:
            self._log.info("dial_canceled", reason=reason)
        self.finish(CANCELED)

    # --- what the carrier tells ---

    def known(self, call_id: str) -> bool:
        """The carrier's call for this dial is that one. False when it is over, or another call is."""
        if not self.progress.pending:
            return False
        if self.placed:
            return self.call_id == call_id
        if self._desk.live.find(self.org_id, call_id) is not None:
            return False
        self._desk.live.remove(self.org_id, self.dial_id)
        self.expected.facts = replace(self.expected.facts, call_id=call_id)
        self._desk.live.add(self)
        self._log = self._log.bind(call_id=call_id)
        self.progress.placed()
        self._announce()
        return True

    def told(self, status: str) -> None:
        """How the carrier's call fares."""
        outcome = self.progress.told(status, self._desk.clock.now())
        if outcome is None:
            self._watch()
        else:
            self.finish(outcome, told=True)

    def note(self, key: str, text: str) -> None:
        """Something the carrier found out, for the call's metadata."""
        facts = self.expected.facts
        metadata = {**facts.metadata, key: msgspec.Raw(msgspec.json.encode(text))}
        self.expected.facts = replace(facts, metadata=metadata)

    def connect(self) -> None:
        """Its line is there: from here on somebody else is called by its id."""
        self.progress.connected()
        self._watch()
        self._desk.live.remove(self.org_id, self.call_id)

    def finish(self, outcome: Outcome, *, told: bool = False) -> None:
        """It will never be a call; its agent hears so, once."""
        if not self.progress.end():
            return
        self._watch()
        self._desk.live.remove(self.org_id, self.call_id)
        now = self._desk.clock.wall()
        ended = self.expected.facts.ended(outcome.reason, (now, now), [])
        if outcome.error:
            ended.error, ended.code = outcome.error, outcome.code
        self._tell(ended, seq=1)
        self._log.info("dial_over", reason=outcome.reason, code=outcome.code)
        self._desk.over(self, outcome, told=told)

    # --- inside ---

    def _announce(self) -> None:
        facts = self.expected.facts
        self._tell(CallDialing(from_=facts.from_, to=facts.to), seq=0)

    def _tell(self, event: CallEvent, seq: int) -> None:
        """Numbers of the call itself begin with 1."""
        event.agent_id, event.seq, event.ts = self._agent_id, seq, self._desk.clock.wall()
        event.call_id = event.session_id = self.call_id
        if self._sink is not None:
            self._sink.deliver(event)

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.progress.pending:
            at, _ = self.progress.deadline()
            delay = max(0.0, at - self._desk.clock.now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._too_late)

    def _too_late(self) -> None:
        _, outcome = self.progress.deadline()
        self._log.warning("dial_too_late", state=DialState(self.progress.state).name.lower())
        self.finish(outcome)
