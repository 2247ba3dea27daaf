"""A call's events as people read them: a live transcript, then a table of how fast each turn went."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

_RESET = "\x1b[0m"
_COLOURS = {"caller": "\x1b[36m", "bot": "\x1b[32m", "event": "\x1b[2m", "bad": "\x1b[31m"}


class CallFrame(msgspec.Struct, kw_only=True):
    """What the transcript reads of any event."""

    event: str
    ts: float = 0.0
    call_id: str = ""
    message_id: str = ""
    text: str = ""
    word: str = ""
    reason: str = ""
    error: str = ""
    code: str = ""
    probability: float = 0.0
    latency_ms: int = 0
    lag_ms: int = 0
    played_ms: int = 0
    duration_ms: int = 0
    duration_seconds: float = 0.0


@dataclass(slots=True)
class TurnTimes:
    """One turn of the caller, in ms from the end of speech; None: did not happen."""

    text: str
    final_ms: int
    ended_ms: int
    ended_at: float
    answered_ms: int | None = None
    heard_ms: int | None = None
    """The first word of the answer was heard."""

    def since(self, at: float) -> int:
        """Ms from the end of speech to then (epoch seconds)."""
        return self.ended_ms + round((at - self.ended_at) * 1000)


@dataclass(slots=True)
class Transcript:
    """Reads frames one by one; `read` gives the lines to print for each."""

    colour: bool = False
    turns: list[TurnTimes] = field(default_factory=list[TurnTimes])
    registered: bool = False
    """The agent may be called."""
    booked: bool = False
    """The agent made the booking."""
    _started: float = 0.0
    _now: float = 0.0
    _lag: int = 0
    _words: list[str] = field(default_factory=list[str])

    def read(self, frame: bytes) -> list[str]:
        """The lines that this event adds to the transcript."""
        event = msgspec.json.decode(frame, type=CallFrame)
        if event.event == "call.started":
            self._started = event.ts
        line = self._line(event)
        return [] if line is None else [f"{self._clock(event)} {line}"]

    def table(self) -> list[str]:
        """Per-turn latencies, from the end of the caller's speech."""
        rows = [
            "turn  final text  turn end  first audio  first word  what was said",
            "----  ----------  --------  -----------  ----------  -------------",
        ]
        for number, turn in enumerate(self.turns, start=1):
            answered, heard = (
                "-" if moment is None else f"{moment} ms" for moment in (turn.answered_ms, turn.heard_ms)
            )
            rows.append(
                f"{number:>4}  {turn.final_ms:>7} ms  {turn.ended_ms:>5} ms  {answered:>11}  {heard:>10}  {turn.text}"
            )
        return rows

    def _line(self, event: CallFrame) -> str | None:
        match event.event:
            case "user.speaking":
                return self._paint("event", f"          … {event.text}")
            case "user.message":
                self._lag = event.lag_ms
                return self._paint("caller", f"caller    {event.text}")
            case "turn.end":
                self.turns.append(TurnTimes(event.text, self._lag, event.latency_ms, event.ts))
                return self._paint(
                    "event", f"turn.end  p={event.probability:.2f}, {event.latency_ms} ms after the caller stopped"
                )
            case "bot.speaking":
                self._words = []
                self._answered(event.ts)
                return self._paint("bot", f"bot       {event.text}") if event.text else None
            case "bot.word":
                self._words.append(event.word)
                self._heard(event.ts)
                return None
            case "bot.finished":
                return self._paint("event", f"heard     {event.duration_ms} ms, word by word: {' '.join(self._words)}")
            case "bot.interrupted":
                return self._paint(
                    "bad", f"stopped   after {event.played_ms} ms ({event.reason}): {' '.join(self._words)}"
                )
            case "call.ended":
                return self._paint("event", f"call.ended  {event.reason}, {event.duration_seconds:.1f} s")
            case "error":
                return self._paint("bad", f"error     {event.code}: {event.error}")
            case "channel.added":
                self.registered = True
                return None
            case "demo.booked":
                self.booked = True
                return self._paint("bot", f"BOOKED    {event.text}")
            case "call.started" | "speech.started" | "speech.ended" | "turn.pause" | "turn.resumed" | "turn.continued":
                return self._paint("event", event.event)
            case _:
                return None

    def _answered(self, at: float) -> None:
        if self.turns and self.turns[-1].answered_ms is None:
            self.turns[-1].answered_ms = self.turns[-1].since(at)

    def _heard(self, at: float) -> None:
        if self.turns and self.turns[-1].answered_ms is not None and self.turns[-1].heard_ms is None:
            self.turns[-1].heard_ms = self.turns[-1].since(at)

    def _clock(self, event: CallFrame) -> str:
        self._now = event.ts or self._now
        seconds = max(0.0, self._now - self._started) if self._started else 0.0
        return f"{seconds:6.2f}s"

    def _paint(self, kind: str, text: str) -> str:
        return f"{_COLOURS[kind]}{text}{_RESET}" if self.colour else text
