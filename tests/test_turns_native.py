"""Turns found by the recogniser (Flux), as timelines of audio time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from pipelines.listening.directives import Output, StopBot
from pipelines.listening.interruption import InterruptionGate
from pipelines.listening.native import NativeTurns
from pipelines.listening.turn import TurnMachine, TurnRules
from providers.base import NativeTurn, TurnMoment
from wire.config import InterruptionConfig
from wire.events import CallEvent


@dataclass
class Line:
    turns: NativeTurns
    now: int = 0
    index: int = 0
    log: list[Output] = field(default_factory=list[Output])

    def level(self, ms: int, db: float) -> Line:
        for _ in range(ms // 20):
            self.now += 20
            self.turns.level(self.now, 20, db)
            self.log += self.turns.take()
        return self

    def voice(self, ms: int) -> Line:
        return self.level(ms, -20.0)

    def quiet(self, ms: int) -> Line:
        return self.level(ms, -60.0)

    def say(self, moment: TurnMoment, text: str = "") -> Line:
        self.turns.turn(NativeTurn(moment, text, self.index, probability=0.8, confidence=0.9))
        if moment is TurnMoment.END:
            self.index += 1
        self.log += self.turns.take()
        return self

    def bot(self, ms: int) -> Line:
        self.turns.machine.bot_audible(self.now, greeting=False)
        return self.quiet(ms)

    def events(self) -> list[CallEvent]:
        return [output for output in self.log if isinstance(output, CallEvent)]

    def names(self) -> list[str]:
        return [str(type(event).__struct_config__.tag) for event in self.events()]

    def last(self, name: str) -> dict[str, object]:
        found = [event for event in self.events() if type(event).__struct_config__.tag == name][-1]
        return {key: getattr(found, key) for key in found.__struct_fields__}

    @property
    def stops(self) -> int:
        return sum(1 for output in self.log if isinstance(output, StopBot))


def line(interruption: InterruptionConfig | None = None) -> Line:
    ids = itertools.count(1)
    gate = InterruptionGate(interruption or InterruptionConfig(), "en")
    rules = TurnRules(language="en", gate=gate, new_id=lambda: f"u{next(ids)}")
    return Line(NativeTurns(TurnMachine(rules), "en"))


def said(text: str = "a table for two") -> Line:
    call = line().quiet(200).voice(900).say(TurnMoment.START, "a").say(TurnMoment.UPDATE, text)
    return call.quiet(200).say(TurnMoment.EAGER_END, text).quiet(100).say(TurnMoment.END, text)


@pytest.mark.proves("row-70", "row-71", "row-74", "ws-21")
def test_a_turn_with_an_eager_end_keeps_its_message_id() -> None:
    call = said()
    assert call.names() == [
        "speech.started",
        "user.speaking",
        "user.speaking",
        "speech.ended",
        "user.message",
        "eager.turn",
        "turn.end",
    ]
    ids: set[str] = {getattr(event, "message_id", "") for event in call.events()} - {""}
    assert len(ids) == 1
    assert call.last("turn.end")["latency_ms"] == 300


@pytest.mark.proves("row-73")
def test_a_resumed_turn_makes_the_eager_message_obsolete() -> None:
    call = line().voice(900).say(TurnMoment.START, "a").say(TurnMoment.EAGER_END, "a table")
    first = call.last("eager.turn")["message_id"]
    call.voice(300).say(TurnMoment.RESUMED, "a table for").say(TurnMoment.EAGER_END, "a table for two")
    call.say(TurnMoment.END, "a table for two")
    end = call.last("turn.end")
    assert end["text"] == "a table for two"
    assert end["message_id"] != first
    assert call.names().count("turn.continued") == 1
    assert call.names().count("user.message") == 2


def test_a_turn_that_ends_without_an_eager_end_is_announced_then() -> None:
    call = line().voice(500).say(TurnMoment.START, "hi").say(TurnMoment.END, "hi")
    assert call.names()[-3:] == ["speech.ended", "user.message", "turn.end"]


def test_a_turn_without_words_leaves_no_message() -> None:
    call = line().voice(200).say(TurnMoment.START).say(TurnMoment.END)
    assert call.names() == ["speech.started", "speech.ended"]
    assert call.voice(500).say(TurnMoment.START, "hi").last("speech.started")["turn_id"] == 1


@pytest.mark.proves("ws-22")
def test_a_new_start_before_the_bot_is_heard_continues_the_turn() -> None:
    call = said("a table for two").voice(500).say(TurnMoment.START, "outside").say(TurnMoment.END, "outside please")
    assert call.last("turn.end")["text"] == "a table for two outside please"
    assert call.last("turn.end")["turn_id"] == 1
    assert call.names().count("turn.continued") == 1


@pytest.mark.proves("row-78")
def test_speech_over_the_bot_stops_it_and_its_words_are_a_new_turn() -> None:
    call = said().bot(3000).voice(200).say(TurnMoment.START, "no").voice(100).say(TurnMoment.UPDATE, "no wait")
    assert call.stops == 1
    call.turns.machine.bot_stopped(call.now, 3300)
    call.quiet(20).say(TurnMoment.END, "no wait")
    assert call.last("turn.end")["text"] == "no wait"
    assert call.last("turn.end")["turn_id"] == 2


def test_noise_without_a_start_of_the_recogniser_does_not_stop_the_bot() -> None:
    assert said().bot(1000).voice(2000).stops == 0


@pytest.mark.proves("ws-25")
def test_an_acknowledgement_over_the_bot_is_no_turn() -> None:
    call = said().bot(1000).voice(300).say(TurnMoment.START, "mm-hm").quiet(300).say(TurnMoment.END, "mm-hm")
    assert call.stops == 0
    call.turns.machine.bot_silent(call.now)
    call.quiet(500)
    assert call.names().count("turn.end") == 1


@pytest.mark.proves("row-107")
def test_without_interruption_a_turn_said_over_the_bot_comes_after_it() -> None:
    call = line(InterruptionConfig(enabled=False))
    call.bot(500).voice(900).say(TurnMoment.START, "one more").quiet(300).say(TurnMoment.END, "one more thing")
    assert call.names() == []
    call.turns.machine.bot_silent(call.now)
    call.quiet(40)
    assert call.names()[-2:] == ["user.message", "turn.end"]
    assert call.last("turn.end")["text"] == "one more thing"


def test_reports_of_a_turn_that_has_ended_are_ignored() -> None:
    call = said()
    before = call.names()
    call.turns.turn(NativeTurn(TurnMoment.UPDATE, "late", 0))
    assert call.turns.take() == []
    assert call.names() == before


def test_words_that_are_not_sure_enough_were_not_said() -> None:
    rules = TurnRules(language="en", gate=InterruptionGate(InterruptionConfig(), "en"), new_id=lambda: "u1")
    call = Line(NativeTurns(TurnMachine(rules), "en", min_confidence=0.95))
    call.voice(500).say(TurnMoment.START, "mumble").say(TurnMoment.EAGER_END, "mumble").say(TurnMoment.END, "mumble")
    assert "turn.end" not in call.names()
    assert "user.message" not in call.names()


def test_a_voice_too_soft_to_be_measured_is_timed_by_its_words_and_not_by_an_older_one() -> None:
    call = said().bot(2000)
    call.turns.machine.bot_silent(call.now)
    call.level(60_000, -52.0).say(TurnMoment.START, "one").level(260, -52.0).say(TurnMoment.UPDATE, "one more")
    call.level(700, -52.0).say(TurnMoment.UPDATE, "one more").say(TurnMoment.END, "one more")
    assert call.last("turn.end")["latency_ms"] == 700
    assert call.last("speech.ended")["duration_ms"] == 260
    call.level(60_000, -52.0).say(TurnMoment.START, "two").level(500, -52.0).say(TurnMoment.END, "two")
    assert call.last("turn.end")["latency_ms"] == 500
    assert call.last("speech.ended")["duration_ms"] == 0


def test_a_turn_told_by_its_end_alone_has_no_latency_of_minutes() -> None:
    call = said().bot(2000)
    call.turns.machine.bot_silent(call.now)
    call.level(60_000, -52.0).say(TurnMoment.END, "yes")
    assert call.last("turn.end")["latency_ms"] == 0
    call.bot(500)
    call.turns.machine.bot_silent(call.now)
    call.voice(500).say(TurnMoment.START, "loud").quiet(300).say(TurnMoment.END, "loud again")
    assert call.last("turn.end")["latency_ms"] == 300
