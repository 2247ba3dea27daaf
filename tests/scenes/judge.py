"""What went wrong in a performance, and how long things took."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from tests.scenes.corpus import Part
from tests.scenes.line import Placed
from tests.scenes.sounds import RATE
from tests.scenes.stage import Performance, expected_turns
from wire.events import BotInterrupted, BotSpeaking, CallEnded, TurnEnd


class Fault(StrEnum):
    """What can go wrong. The order is that of the table."""

    FALSE_INTERRUPTION = "false interruptions"
    ECHO_INTERRUPTION = "echo interruptions"
    MISSED_INTERRUPTION = "missed interruptions"
    LATE_INTERRUPTION = "late interruptions"
    LEFT_SILENT = "left silent"
    FALSE_RESUME = "false resumes"
    CUT_IN = "cut-ins"
    PHANTOM_TURN = "phantom turns"
    LOST_TURN = "lost turns"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault."""

    fault: Fault
    scene: str
    what: str


@dataclass
class Verdict:
    """Of some performances. Delays in ms."""

    scenes: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    turn_ends: list[int] = field(default_factory=list[int])
    """From the end of what was said to `turn.end`."""
    stops: list[int] = field(default_factory=list[int])
    """From the onset of an interruption to the decision."""

    def add(self, other: Verdict) -> None:
        self.scenes += other.scenes
        self.findings += other.findings
        self.turn_ends += other.turn_ends
        self.stops += other.stops

    def count(self, fault: Fault) -> int:
        return sum(one.fault is fault for one in self.findings)


def judge(performance: Performance) -> Verdict:
    """Hold what happened against what should have."""
    verdict = Verdict(scenes=1)
    case = _Case(performance, verdict)
    case.interruptions()
    case.turns()
    return verdict


def percentile(values: list[int], share: float) -> int | None:
    """The smallest value that at least that share of them do not exceed."""
    return sorted(values)[max(0, -(-len(values) * round(share * 100) // 100) - 1)] if values else None


MISSED_S = 2.5
"""An interruption that stopped nothing by then was missed."""
BEFORE_S = 1.5
"""What stopped the bot began at most so long before."""
RESUMES_S = 5.0


class _Case:
    def __init__(self, performance: Performance, verdict: Verdict) -> None:
        self._scene = performance.scene
        self._events = performance.events
        self._placed = performance.placed
        self._ended_s = len(performance.said) / RATE
        self._verdict = verdict

    def _found(self, fault: Fault, what: str) -> None:
        self._verdict.findings.append(Finding(fault, self._scene.name, what))

    # --- interruptions ---

    def interruptions(self) -> None:
        stops = [(at, one) for at, one in self._events if isinstance(one, BotInterrupted) and _by_voice(one)]
        real = [one for one in self._placed if one.sound.interrupts]
        explained: set[float] = set()
        for one in real:
            onset = one.start / RATE
            at = next((at for at, _ in stops if onset <= at < onset + MISSED_S and at not in explained), None)
            if at is None:
                self._found(Fault.MISSED_INTERRUPTION, f"{_named(one)} at {onset:.2f} s did not stop the bot")
                continue
            explained.add(at)
            took = round((at - onset) * 1000)
            self._verdict.stops.append(took)
            if took > self._scene.stops_within_ms:
                self._found(Fault.LATE_INTERRUPTION, f"{_named(one)} stopped the bot after {took} ms")
        for at, stop in stops:
            resumed = self._resumed(at, stop)
            if at in explained:
                if resumed:
                    self._found(Fault.FALSE_RESUME, f"the bot spoke on after it was interrupted at {at:.2f} s")
                continue
            if self._allowed(at):
                continue
            if not self._scene.resumes:
                self._false_stop(at)
            if not resumed:
                self._found(Fault.LEFT_SILENT, f"nothing was spoken on after {at:.2f} s")

    def _allowed(self, at: float) -> bool:
        may = (one for one in self._placed if one.sound.may_interrupt)
        return any(one.start / RATE <= at < one.start / RATE + MISSED_S for one in may)

    def _false_stop(self, at: float) -> None:
        cause = [one for one in self._placed if one.start / RATE <= at <= one.end / RATE + BEFORE_S]
        if self._scene.echo is not None and not cause:
            self._found(Fault.ECHO_INTERRUPTION, f"the bot stopped for its own voice at {at:.2f} s")
        else:
            by = _named(cause[-1]) if cause else "the background"
            self._found(Fault.FALSE_INTERRUPTION, f"the bot stopped for {by} at {at:.2f} s")

    def _resumed(self, at: float, stop: BotInterrupted) -> bool:
        said = {one.message_id: one.text for _, one in self._events if isinstance(one, BotSpeaking)}
        whole = said.get(stop.message_id, "")
        later = [one.text for when, one in self._events if isinstance(one, BotSpeaking) and at < when < at + RESUMES_S]
        return any(text and text != whole and whole.endswith(text) for text in later)

    # --- turns ---

    def turns(self) -> None:
        turns = expected_turns(self._placed)
        ends = [(at, one) for at, one in self._events if isinstance(one, TurnEnd)]
        answered: dict[int, str] = {}
        for at, end in ends:
            index = next((i for i in reversed(range(len(turns))) if turns[i][0].start / RATE <= at), None)
            if index is None:
                self._found(Fault.PHANTOM_TURN, f"a turn {end.text!r} at {at:.2f} s, before anybody spoke")
            elif at < turns[index][-1].end / RATE:
                self._found(Fault.CUT_IN, f"the turn ended at {at:.2f} s with {end.text!r}, in the middle")
            elif index in answered:
                self._found(Fault.PHANTOM_TURN, f"one more turn {end.text!r} at {at:.2f} s")
            else:
                answered[index] = end.text
                self._verdict.turn_ends.append(round((at - turns[index][-1].end / RATE) * 1000))
        for index, turn in enumerate(turns):
            # What the caller added at once may have become one turn with what went before.
            following = turns[index + 1][0].sound.role is Part.AGAIN if index + 1 < len(turns) else False
            self._lost(turn, answered.get(index, answered.get(index + 1) if following else None))

    def _lost(self, turn: list[Placed], text: str | None) -> None:
        if turn[-1].sound.role is Part.CUT:
            text = self._record()
        missing = set(self._words(turn)) - set(_tokens(text or ""))
        if text is None or missing:
            self._found(Fault.LOST_TURN, f"{_named(turn[0])}: {'no turn' if text is None else sorted(missing)}")

    def _words(self, turn: list[Placed]) -> Iterator[str]:
        """What must be in the turn: of what was cut off by hanging up, the words a recogniser could know."""
        for one in turn:
            cut = one.sound.role is Part.CUT
            for word in one.words:
                if not cut or word.end / RATE <= self._ended_s - 0.3:
                    yield from _tokens(word.text)

    def _record(self) -> str:
        ended = next((one for _, one in self._events if isinstance(one, CallEnded)), None)
        return " ".join(str(entry.content) for entry in ended.messages if entry.role == "user") if ended else ""


def _by_voice(stop: BotInterrupted) -> bool:
    """Not by a command or the end of the call, and not a message that nobody had begun to hear."""
    return stop.played_ms > 0 and stop.reason != "cancelled"


def _named(one: Placed) -> str:
    return repr(one.sound.text) if one.sound.text else f"the {one.sound.noise}"


def _tokens(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())
