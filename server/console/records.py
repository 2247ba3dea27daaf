"""What the console shows of calls: those that live and the last ones that ended, in memory only, per organisation.

A record keeps the call's events as they go over the wire. What only fills the time until something final comes (interim
texts, words being spoken) is kept until then; sound never.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec

from pipelines.call import Call, CallState
from pipelines.turn_times import TurnRecord
from wire.events import (
    AudioMetrics,
    BotAudioComplete,
    BotFinished,
    BotInterrupted,
    BotWord,
    CallEnded,
    CallError,
    CallEvent,
    CallRecording,
    CallStarted,
    TurnAudio,
    UserMessage,
    UserSpeaking,
)

MAX_EVENTS: Final = 4000
"""Of one call; of a longer one the oldest are forgotten."""

_encoder: Final = msgspec.json.Encoder()


class CallSummary(msgspec.Struct, kw_only=True):
    """One line of the list of calls. Times are epoch seconds."""

    call_id: str
    agent: str
    from_: str = msgspec.field(name="from", default="")
    to: str = ""
    direction: str = ""
    transport: str = ""
    started_at: float = 0.0
    ended_at: float | None = None
    reason: str | None = None
    turns: int = 0
    interruptions: int = 0
    errors: int = 0
    answer_ms: int | None = None
    """From the end of the user's speech to the first sound of the answer, in the last answered turn."""


class RecordListener(Protocol):
    """An open page. Methods neither block nor raise."""

    def changed(self, record: CallRecord) -> None:
        """Its summary has."""
        ...

    def happened(self, record: CallRecord, event: bytes) -> None:
        """An event of the call, as JSON."""
        ...

    def answered(self, record: CallRecord, turn: TurnRecord) -> None:
        """How long a turn took."""
        ...


class CallRecord:
    """One call, from its beginning; an `EventSink` of it. `call` is None once it is over."""

    def __init__(self, call: Call, tell: Callable[[], Iterator[RecordListener]]) -> None:
        self.org_id = call.org_id
        self.call: Call | None = call
        self.summary = CallSummary(call_id=call.call_id, agent=call.slug)
        self.turns: list[TurnRecord] = []
        self._tell = tell
        self._settled: list[bytes] = []
        self._interim = b""
        self._words: list[bytes] = []

    @property
    def over(self) -> bool:
        """Whether the call has ended; one that ends before it begins says nothing of it."""
        return self.call is None or self.call.state is CallState.ENDED

    @property
    def events(self) -> list[bytes]:
        """What happened, each as JSON: what has settled, then what is being said now."""
        return [*self._settled, *([self._interim] if self._interim else []), *self._words]

    def deliver(self, event: CallEvent) -> None:
        """Take one event."""
        if isinstance(event, AudioMetrics | TurnAudio | BotAudioComplete | CallRecording):
            return
        encoded = _encoder.encode(event)
        self._keep(event, encoded)
        for listener in self._tell():
            listener.happened(self, encoded)
        if self._sum_up(event):
            for listener in self._tell():
                listener.changed(self)

    def turn_answered(self, turn: TurnRecord) -> None:
        """Take the times of one turn."""
        self.turns.append(turn)
        self.summary.answer_ms = turn.audible
        for listener in self._tell():
            listener.answered(self, turn)
            listener.changed(self)

    def _keep(self, event: CallEvent, encoded: bytes) -> None:
        match event:
            case UserSpeaking():
                self._interim = encoded
                return
            case BotWord():
                self._words.append(encoded)
                return
            case UserMessage():
                self._interim = b""
            case BotFinished() | BotInterrupted():
                self._words.clear()
            case _:
                pass
        self._settled.append(encoded)
        if len(self._settled) > MAX_EVENTS:
            del self._settled[0]

    def _sum_up(self, event: CallEvent) -> bool:
        """Whether the summary has changed."""
        summary = self.summary
        match event:
            case CallStarted():
                summary.from_, summary.to, summary.direction = event.from_, event.to, event.direction
                summary.transport = event.transport
                summary.started_at = summary.started_at or event.ts
            case UserMessage():
                summary.turns += 1
            case BotInterrupted():
                summary.interruptions += 1
            case CallError():
                summary.errors += 1
            case CallEnded():
                summary.ended_at, summary.reason = event.ended_at, event.reason
                self.call = None
            case _:
                return False
        return True


class Records:
    """The calls of all organisations that the console can show."""

    def __init__(self, keep: int) -> None:
        """Of each organisation, the last `keep` calls that ended stay."""
        self._keep = keep
        self._by_org: dict[str, OrderedDict[str, CallRecord]] = {}
        self._listeners: dict[str, list[RecordListener]] = {}

    def observe(self, call: Call) -> None:
        """A call begins."""
        org_id = call.org_id
        record = CallRecord(call, lambda: iter(tuple(self._listeners.get(org_id, ()))))
        records = self._by_org.setdefault(org_id, OrderedDict())
        records[call.call_id] = record
        self._forget(records)
        call.events.watch(record)
        call.times.listen(record.turn_answered)

    def of_org(self, org_id: str) -> list[CallRecord]:
        """All calls of an organisation that are known, oldest first."""
        records = self._by_org.get(org_id)
        return [] if records is None else list(records.values())

    def find(self, org_id: str, call_id: str) -> CallRecord | None:
        """One call."""
        records = self._by_org.get(org_id)
        return None if records is None else records.get(call_id)

    def listen(self, org_id: str, listener: RecordListener) -> None:
        """Tell this page of the organisation's calls, until `leave`."""
        self._listeners.setdefault(org_id, []).append(listener)

    def leave(self, org_id: str, listener: RecordListener) -> None:
        """Tell it no more."""
        self._listeners[org_id].remove(listener)

    def _forget(self, records: OrderedDict[str, CallRecord]) -> None:
        over = [record for record in records.values() if record.over]
        for record in over[: max(0, len(over) - self._keep)]:
            del records[record.summary.call_id]
