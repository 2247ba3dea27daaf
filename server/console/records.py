"""What the console shows of conversations: those that live and the last ones that ended, in memory only, per
organisation. Calls and chats alike: both state their facts as events.

A record keeps what a transcript is made of, as it goes over the wire. What only fills the time until something final
comes (interim texts, words being spoken) is kept until then; what nobody reads afterwards (voice activity, loudness) is
passed on to pages that look and kept by nobody. Sound is neither.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from pipelines.call import Call
from pipelines.chatting.session import ChatSession
from pipelines.turn_times import TurnRecord
from wire.chat_events import ChatMessage, LlmChatEnded, LlmChatError, LlmChatStarted
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
    EagerTurn,
    HistoryData,
    HistoryUpdated,
    LlmError,
    MessageConfirmed,
    SpeechEnded,
    SpeechStarted,
    TurnAudio,
    TurnContinued,
    TurnPause,
    TurnResumed,
    UserMessage,
    UserSpeaking,
)

MAX_EVENTS: Final = 4000
"""Of one conversation; of a longer one the oldest are forgotten."""
MAX_TURNS: Final = 1000
"""Likewise of latencies."""

_NEVER_SHOWN: Final = (AudioMetrics, TurnAudio, BotAudioComplete, CallRecording, HistoryData, HistoryUpdated)
_OF_THE_MOMENT: Final = (SpeechStarted, SpeechEnded, TurnPause, TurnResumed, EagerTurn, MessageConfirmed)

_encoder: Final = msgspec.json.Encoder()


class CallSummary(msgspec.Struct, kw_only=True):
    """One line of the list. Times are epoch seconds."""

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

    def happened(self, record: CallRecord, event: CallEvent) -> None:
        """An event of the conversation."""
        ...

    def answered(self, record: CallRecord, turn: TurnRecord) -> None:
        """How long a turn took."""
        ...


class CallRecord:
    """One conversation, from its beginning; an `EventSink` of it. `live` is None once it is over."""

    def __init__(self, live: Call | ChatSession, listeners: Callable[[], list[RecordListener]]) -> None:
        self.live: Call | ChatSession | None = live
        self.summary = CallSummary(call_id=live.call_id, agent=live.slug)
        self.turns: deque[TurnRecord] = deque(maxlen=MAX_TURNS)
        self._listeners = listeners
        self._settled: deque[bytes] = deque(maxlen=MAX_EVENTS)
        self._interim: CallEvent | None = None
        self._words: list[CallEvent] = []

    @property
    def over(self) -> bool:
        """Whether it has ended; one that ends before it begins says nothing of it."""
        return self.live is None or self.live.events.closed

    @property
    def events(self) -> list[msgspec.Raw]:
        """What happened, each as JSON: what has settled, then what is being said now."""
        now = [*([self._interim] if self._interim is not None else []), *self._words]
        return [msgspec.Raw(event) for event in (*self._settled, *map(_encoder.encode, now))]

    @property
    def shortened(self) -> bool:
        """Whether it was so long that its beginning is forgotten."""
        return len(self._settled) == MAX_EVENTS

    def deliver(self, event: CallEvent) -> None:
        """Take one event."""
        if isinstance(event, _NEVER_SHOWN):
            return
        if isinstance(event, CallEnded | LlmChatEnded | LlmChatError) and event.messages:
            # The whole record once more, instructions included: the transcript is there already.
            event = msgspec.structs.replace(event, messages=[])
        if not isinstance(event, _OF_THE_MOMENT):
            self._keep(event)
        for listener in self._listeners():
            listener.happened(self, event)
        if self._sum_up(event):
            for listener in self._listeners():
                listener.changed(self)

    def turn_answered(self, turn: TurnRecord) -> None:
        """Take the times of one turn."""
        self.turns.append(turn)
        self.summary.answer_ms = turn.audible
        for listener in self._listeners():
            listener.answered(self, turn)
            listener.changed(self)

    def _keep(self, event: CallEvent) -> None:
        match event:
            case UserSpeaking():
                self._interim = event
                return
            case BotWord():
                self._words.append(event)
                return
            case UserMessage() | TurnContinued():
                self._interim = None
            case BotInterrupted():
                # The only word of what was heard of it, where its text came in a stream.
                self._settled.extend(map(_encoder.encode, self._words))
                self._words.clear()
            case BotFinished():
                self._words.clear()
            case _:
                pass
        self._settled.append(_encoder.encode(event))

    def _sum_up(self, event: CallEvent) -> bool:
        """Whether the summary has changed."""
        summary = self.summary
        match event:
            case CallStarted() | LlmChatStarted():
                summary.from_, summary.to, summary.direction = event.from_, event.to, event.direction
                summary.transport = event.transport
                summary.started_at = summary.started_at or event.ts
            case UserMessage() | ChatMessage():
                summary.turns += 1
            case BotInterrupted():
                summary.interruptions += 1
            case CallError() | LlmError():
                summary.errors += 1
            case CallEnded() | LlmChatEnded():
                summary.ended_at, summary.reason = event.ended_at, event.reason
                self.live = None
            case LlmChatError():
                summary.ended_at, summary.reason = event.ended_at, "error"
                self.live = None
            case _:
                return False
        return True


class Records:
    """The conversations of all organisations that the console can show."""

    def __init__(self, keep: int) -> None:
        """Of each organisation, the last `keep` that ended stay."""
        self._keep = keep
        self._by_org: dict[str, OrderedDict[str, CallRecord]] = {}
        self._listeners: dict[str, list[RecordListener]] = {}

    def observe(self, call: Call) -> None:
        """A call begins."""
        record = self._record(call)
        call.times.listen(record.turn_answered)

    def observe_chat(self, chat: ChatSession) -> None:
        """A conversation in text begins."""
        self._record(chat)

    def of_org(self, org_id: str) -> list[CallRecord]:
        """All conversations of an organisation that are known, oldest first."""
        records = self._by_org.get(org_id)
        return [] if records is None else list(records.values())

    def find(self, org_id: str, call_id: str) -> CallRecord | None:
        """One of them."""
        records = self._by_org.get(org_id)
        return None if records is None else records.get(call_id)

    def listen(self, org_id: str, listener: RecordListener) -> None:
        """Tell this page of the organisation's conversations, until `leave`."""
        self._listeners.setdefault(org_id, []).append(listener)

    def leave(self, org_id: str, listener: RecordListener) -> None:
        """Tell it no more."""
        self._listeners[org_id].remove(listener)

    def _record(self, live: Call | ChatSession) -> CallRecord:
        org_id = live.org_id
        record = CallRecord(live, lambda: list(self._listeners.get(org_id, ())))
        records = self._by_org.setdefault(org_id, OrderedDict())
        records[live.call_id] = record
        self._forget(records)
        live.events.watch(record)
        return record

    def _forget(self, records: OrderedDict[str, CallRecord]) -> None:
        over = [record for record in records.values() if record.over]
        for record in over[: max(0, len(over) - self._keep)]:
            del records[record.summary.call_id]
