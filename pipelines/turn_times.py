"""How long each turn took, step by step, from the end of the user's speech to the first sound of the answer.

Pure bookkeeping on the call's clock. Turns come as events of the call, steps of the answer as `Milestones` that travel
with each message of the bot. A turn is told once, when its answer is first heard; one that is continued, interrupted
before that, or never answered is not told. Greetings, proactive messages and resumed speech answer no turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.clock import Clock
from wire.events import BotFinished, BotInterrupted, BotSpeaking, CallEvent, TurnContinued, TurnEnd, UserMessage

ANSWER_SECONDS = 10.0
"""What an agent says without naming the message it answers is taken for the answer to a turn that ended no longer ago:
later it is more likely something of its own, such as "are you still there?"."""


@dataclass(slots=True)
class Milestones:
    """When a message of the bot came how far, in seconds of the call's clock; None where it has not or does not."""

    asked: float | None = None
    """The server's model was asked, for the first time in this turn."""
    worded: float | None = None
    """Its first words were there: the model's first token, or the agent's message."""
    voiced: float | None = None
    """Its first sentence went to the voice."""
    sounded: float | None = None
    """The voice gave its first audio."""
    sent: float | None = None
    """Its first audio went to the line."""
    heard: float | None = None
    """Its first sound reached the caller; None where the line never confirmed that."""
    tool_rounds: int = 0
    """How often the model had functions run before it found words."""


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One answered turn. Moments are ms since the user stopped speaking (or since the bot did, where the user spoke
    over it); never negative, None where a step does not apply: an answer of the agent's own program has no `asked`."""

    turn_id: int
    tool_rounds: int
    final_text: int
    decision: int
    """`turn.end`. A model may have been asked before, as soon as the turn was probably over."""
    asked: int | None
    first_token: int | None
    first_sentence: int | None
    first_speech: int | None
    first_sent: int | None
    audible: int | None

    def moments(self) -> dict[str, int]:
        """The steps that there were, by name."""
        moments = {
            "final_text": self.final_text,
            "decision": self.decision,
            "asked": self.asked,
            "first_token": self.first_token,
            "first_sentence": self.first_sentence,
            "first_speech": self.first_speech,
            "first_sent": self.first_sent,
            "audible": self.audible,
        }
        return {name: value for name, value in moments.items() if value is not None}

    def numbers(self) -> dict[str, int]:
        """All of it, as a log line tells it."""
        steps = {f"{name}_ms": value for name, value in self.moments().items()}
        return {"turn_id": self.turn_id, "tool_rounds": self.tool_rounds, **steps}


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn that is over and waits for its answer."""

    turn_id: int
    message_id: str
    spoken_until: float
    final: float
    decided: float


class TurnTimes:
    """The latencies of one call; an `EventSink` of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listeners: list[Callable[[TurnRecord], None]] = []
        self._final = ("", 0.0)
        self._turn: _Turn | None = None
        self._speaking = ""
        self._silent_since = float("-inf")

    def listen(self, listener: Callable[[TurnRecord], None]) -> None:
        """Tell this one of every answered turn. It must not block and must not raise."""
        self._listeners.append(listener)

    def deliver(self, event: CallEvent) -> None:
        """Take one event of the call."""
        match event:
            case UserMessage():
                self._final = (event.message_id, self._clock.now())
            case TurnEnd():
                self._turn = self._ended(event)
            case TurnContinued():
                self._turn = None
            case BotSpeaking():
                self._speaking = event.message_id
            case BotFinished() | BotInterrupted() if event.message_id == self._speaking:
                self._silent_since = self._clock.now()
            case _:
                pass

    def reached(self, in_reply_to: str, milestones: Milestones, *, proactive: bool) -> None:
        """The caller begins to hear a message of the bot. `proactive`: the agent's program wanted it said."""
        turn = self._turn
        if turn is None:
            return
        unnamed = proactive and not in_reply_to and _soon(turn, milestones)
        if in_reply_to != turn.message_id and not unnamed:
            return
        self._turn = None
        record = _record(turn, milestones)
        for listener in self._listeners:
            listener(record)

    def _ended(self, event: TurnEnd) -> _Turn:
        now = self._clock.now()
        message_id, final = self._final
        return _Turn(
            event.turn_id,
            event.message_id,
            # Nobody waits for an answer while the bot is still talking.
            spoken_until=max(now - event.latency_ms / 1000, self._silent_since),
            final=final if message_id == event.message_id else now,
            decided=now,
        )


def _soon(turn: _Turn, milestones: Milestones) -> bool:
    return milestones.worded is not None and 0 <= milestones.worded - turn.decided <= ANSWER_SECONDS


def _record(turn: _Turn, milestones: Milestones) -> TurnRecord:
    def since(moment: float) -> int:
        return max(0, round((moment - turn.spoken_until) * 1000))

    def step(moment: float | None) -> int | None:
        return None if moment is None else since(moment)

    return TurnRecord(
        turn_id=turn.turn_id,
        tool_rounds=milestones.tool_rounds,
        final_text=since(turn.final),
        decision=since(turn.decided),
        asked=step(milestones.asked),
        first_token=step(milestones.worded),
        first_sentence=step(milestones.voiced),
        first_speech=step(milestones.sounded),
        first_sent=step(milestones.sent),
        audible=step(milestones.heard),
    )
