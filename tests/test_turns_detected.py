"""Turns found by voice activity and the end-of-turn model, as timelines of audio time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from pipelines.listening.detected import DetectedTurns
from pipelines.listening.directives import AskFinal, AskModel, Output, StopBot
from pipelines.listening.interruption import InterruptionGate
from pipelines.listening.turn import TurnMachine, TurnRules, TurnState
from providers.base import Transcript, VadFrame
from wire.config import InterruptionConfig, TurnConfig, TurnMode, VadConfig
from wire.events import CallEvent

FRAME = 32


@dataclass
class Line:
    """Drives a machine frame by frame and writes down what comes out."""

    turns: DetectedTurns
    now: int = 0
    log: list[tuple[int, Output]] = field(default_factory=list[tuple[int, Output]])

    @property
    def machine(self) -> TurnMachine:
        return self.turns.machine

    def _take(self) -> None:
        self.log += [(self.now, output) for output in self.turns.take()]

    def voice(self, ms: int, *, db: float = -20.0, probability: float = 0.95) -> Line:
        for _ in range(round(ms / FRAME)):
            self.now += FRAME
            self.turns.hear(VadFrame(self.now, probability, db))
            self._take()
        return self

    def quiet(self, ms: int) -> Line:
        return self.voice(ms, db=-60.0, probability=0.01)

    def final(self, text: str) -> Line:
        self.turns.transcript(Transcript(text, is_final=True))
        self._take()
        return self

    def interim(self, text: str) -> Line:
        self.turns.transcript(Transcript(text, is_final=False))
        self._take()
        return self

    def verdict(self, probability: float) -> Line:
        asked = [output for _, output in self.log if isinstance(output, AskModel)]
        self.turns.verdict(asked[-1].silence, probability)
        self._take()
        return self

    def bot(self, played_ms: int) -> Line:
        """The bot answers and is heard for so long, undisturbed."""
        self.machine.bot_audible(self.now, greeting=False)
        self._take()
        return self.quiet(played_ms)

    def events(self) -> list[CallEvent]:
        return [output for _, output in self.log if isinstance(output, CallEvent)]

    def names(self) -> list[str]:
        return [type(event).__struct_config__.tag for event in self.events()]  # pyright: ignore[reportReturnType]

    def stops(self) -> list[int]:
        return [at for at, output in self.log if isinstance(output, StopBot)]

    def last(self, name: str) -> dict[str, object]:
        found = [event for event in self.events() if type(event).__struct_config__.tag == name]
        return {key: getattr(found[-1], key) for key in found[-1].__struct_fields__}


def line(
    mode: TurnMode = TurnMode.SMART_TURN,
    interruption: InterruptionConfig | None = None,
    window: int | None = None,
    recheck_ms: int = 0,
) -> Line:
    ids = itertools.count(1)
    rules = TurnRules(
        language="en",
        gate=InterruptionGate(interruption or InterruptionConfig(), "en"),
        new_id=lambda: f"u{next(ids)}",
        pending_window_ms=window,
    )
    config = TurnConfig(mode=mode, max_silence_ms=800 if mode is TurnMode.SILENCE else 3000, recheck_ms=recheck_ms)
    return Line(DetectedTurns(TurnMachine(rules), config, VadConfig()))


def said(text: str = "a table for two") -> Line:
    """A user who has said something and whose turn has ended."""
    return line().quiet(320).voice(800).interim(text).quiet(400).final(text).verdict(0.9)


@pytest.mark.proves("row-67", "row-68", "row-69", "row-70", "row-71", "row-74")
def test_a_turn_tells_its_events_in_the_documented_order() -> None:
    call = line().quiet(320).voice(400).interim("a table").voice(400).interim("a table for two")
    call.quiet(400).final("a table for two please").verdict(0.9)
    assert call.names() == [
        "speech.started",
        "user.speaking",
        "user.speaking",
        "speech.ended",
        "user.speaking",
        "user.message",
        "eager.turn",
        "turn.end",
    ]
    end = call.last("turn.end")
    assert end["text"] == "a table for two please"
    assert end["turn_id"] == 1
    assert end["probability"] == 0.9
    assert end["message_id"] == call.last("user.message")["message_id"] == call.last("eager.turn")["message_id"]
    assert 350 <= int(str(end["latency_ms"])) <= 500


def test_speech_shorter_than_the_minimum_is_no_speech() -> None:
    assert line().voice(192).quiet(2000).names() == []


def test_the_recogniser_and_the_model_are_asked_once_a_silence() -> None:
    call = line().voice(800).quiet(2000)
    asked = [output for _, output in call.log if isinstance(output, AskFinal | AskModel)]
    assert asked == [AskFinal(), AskModel(1)]


def test_the_turn_waits_for_its_final_words_at_most_half_a_second_after_the_verdict() -> None:
    call = line().voice(800).interim("hello there").quiet(400).verdict(0.9)
    assert "turn.end" not in call.names()
    assert "turn.end" not in call.quiet(448).names()
    assert call.quiet(96).last("turn.end")["text"] == "hello there"


def test_late_final_words_of_an_ended_turn_change_nothing() -> None:
    call = line().voice(800).interim("hello there").quiet(400).verdict(0.9).quiet(600)
    before = call.names()
    assert call.final("hello there").names() == before


@pytest.mark.proves("row-72")
def test_an_unsure_model_pauses_the_turn_until_the_silence_is_too_long() -> None:
    call = line().voice(800).quiet(400).final("I would like").verdict(0.1)
    assert call.names()[-1] == "turn.pause"
    call.quiet(2000)
    assert call.names()[-1] == "turn.pause"
    call.quiet(1000)
    assert call.names()[-1] == "turn.end"


def test_a_paused_turn_goes_on_with_more_words_under_a_new_id() -> None:
    call = line().voice(800).quiet(400).final("I would like").verdict(0.1)
    first = call.last("user.message")["message_id"]
    call.voice(800)
    assert call.names()[-3:] == ["turn.resumed", "turn.continued", "speech.started"]
    call.quiet(400).final("a table").verdict(0.9)
    end = call.last("turn.end")
    assert end["text"] == "I would like a table"
    assert end["turn_id"] == 1
    assert end["message_id"] != first
    assert call.names().count("user.message") == 2


def test_a_breath_does_not_resume_a_paused_turn() -> None:
    call = line().voice(800).quiet(400).final("I would like").verdict(0.1)
    call.voice(160).quiet(320).voice(300, db=-50.0)
    assert "turn.resumed" not in call.names()


@pytest.mark.proves("row-73", "ws-22")
def test_speaking_on_before_the_bot_is_heard_continues_the_same_turn() -> None:
    call = said("a table for two")
    first = call.last("turn.end")["message_id"]
    call.quiet(200).voice(800)
    assert call.names()[-2:] == ["turn.continued", "speech.started"]
    call.quiet(400).final("outside").verdict(0.8)
    end = call.last("turn.end")
    assert end["text"] == "a table for two outside"
    assert end["turn_id"] == 1
    assert end["message_id"] != first


def test_an_agent_that_never_answers_gets_a_new_turn_after_the_window() -> None:
    call = line(window=2000).voice(800).quiet(400).final("hello").verdict(0.9).quiet(2500)
    call.voice(800).quiet(400).final("anybody there").verdict(0.9)
    assert "turn.continued" not in call.names()
    assert call.last("turn.end")["turn_id"] == 2
    assert call.last("turn.end")["text"] == "anybody there"


def test_noise_without_words_ends_quietly_and_its_number_is_used_again() -> None:
    call = line().voice(600).quiet(1500)
    assert call.names() == ["speech.started", "speech.ended"]
    call.voice(800).quiet(400).final("hello").verdict(0.9)
    assert call.last("turn.end")["turn_id"] == 1


def test_a_cough_while_the_answer_is_prepared_asks_for_the_answer_again() -> None:
    call = said("a table for two").quiet(200).voice(400)
    assert "turn.continued" in call.names()
    call.quiet(1200)
    end = call.last("turn.end")
    assert end["text"] == "a table for two"
    assert call.names().count("turn.end") == 2
    assert call.names().count("user.message") == 2


def test_a_word_too_short_for_the_voice_detector_is_still_a_turn() -> None:
    call = line().voice(160).quiet(400)
    assert AskFinal() in [output for _, output in call.log]
    call.final("yes").verdict(0.9)
    assert call.last("turn.end")["text"] == "yes"


def test_words_of_a_voice_that_the_detector_missed_have_no_latency_of_minutes() -> None:
    call = said().bot(2000)
    call.machine.bot_silent(call.now)
    call.quiet(60_000).final("yes").quiet(40).verdict(0.9)
    end = call.last("turn.end")
    assert (end["text"], end["turn_id"]) == ("yes", 2)
    assert end["latency_ms"] == pytest.approx(FRAME, abs=FRAME)


@pytest.mark.proves("row-78", "ws-24")
def test_a_long_loud_voice_stops_the_bot_and_begins_a_new_turn() -> None:
    call = said().bot(4000).voice(640)
    assert len(call.stops()) == 1
    call.machine.bot_stopped(call.now, 4000)
    call.quiet(0)
    call.log += [(call.now, output) for output in call.turns.take()]
    assert call.names()[-2:] == ["turn.continued", "speech.started"]
    assert call.last("turn.continued")["turn_id"] == 1
    assert call.last("speech.started")["turn_id"] == 2
    call.quiet(400).final("no wait").verdict(0.9)
    assert call.last("turn.end")["text"] == "no wait"


@pytest.mark.proves("ws-23")
def test_talking_into_the_first_second_of_an_answer_continues_the_turn() -> None:
    call = said("a table for two").bot(700).voice(640)
    call.machine.bot_stopped(call.now, 1100)
    call.log += [(call.now, output) for output in call.turns.take()]
    assert call.last("turn.continued")["turn_id"] == 1
    call.quiet(400).final("no three").verdict(0.9)
    assert call.last("turn.end")["text"] == "a table for two no three"
    assert call.last("turn.end")["turn_id"] == 1


def test_words_that_were_said_over_the_bot_are_not_said_twice_after_it_stops() -> None:
    call = said("a table for two").bot(700).voice(200).interim("no three please").voice(64)
    call.machine.bot_stopped(call.now, 1000)
    call.quiet(400).final("no three please").verdict(0.9)
    assert call.last("turn.end")["text"] == "a table for two no three please"


@pytest.mark.proves("row-106")
@pytest.mark.parametrize(
    ("ms", "db", "stops"), [(96, -20.0, False), (500, -50.0, False), (544, -20.0, True)], ids=["short", "soft", "loud"]
)
def test_only_a_voice_long_and_loud_enough_stops_the_bot(ms: int, db: float, stops: bool) -> None:
    call = said().bot(3000).voice(ms, db=db).quiet(500)
    assert bool(call.stops()) is stops


@pytest.mark.proves("ws-25")
@pytest.mark.parametrize("word", ["mm-hm", "ok", "yeah", "right, ok"])
def test_an_acknowledgement_does_not_stop_the_bot(word: str) -> None:
    call = said().bot(3000).voice(320).interim(word).quiet(400).final(word).quiet(800)
    assert call.stops() == []
    call.machine.bot_silent(call.now)
    assert call.quiet(2000).names().count("turn.end") == 1


def test_two_words_that_are_no_acknowledgement_stop_the_bot_at_once() -> None:
    call = said().bot(3000).voice(224).interim("wait stop")
    assert len(call.stops()) == 1


@pytest.mark.proves("row-107")
def test_without_interruption_the_words_become_a_turn_when_the_bot_has_finished() -> None:
    call = line(interruption=InterruptionConfig(enabled=False)).voice(800).quiet(400).final("hello").verdict(0.9)
    call.bot(1000).voice(1200).interim("and one more thing").quiet(400).final("and one more thing").quiet(1200)
    assert call.stops() == []
    call.machine.bot_silent(call.now)
    call.quiet(400).verdict(0.9)
    assert call.last("turn.end")["text"] == "and one more thing"
    assert call.last("turn.end")["turn_id"] == 2


def test_the_first_moments_of_the_greeting_cannot_be_interrupted() -> None:
    call = line()
    call.machine.bot_audible(0, greeting=True)
    call.voice(576)
    assert call.stops() == []
    call.voice(96)
    assert len(call.stops()) == 1


def test_somebody_who_speaks_as_the_bot_finishes_is_listened_to() -> None:
    call = said().bot(3000).voice(300)
    call.machine.bot_silent(call.now)
    call.voice(500).quiet(400).final("and a high chair").verdict(0.9)
    assert call.last("turn.end")["text"] == "and a high chair"
    assert call.machine.state is TurnState.BOT_PENDING


def test_silence_mode_ends_the_turn_by_the_timer_alone() -> None:
    call = line(TurnMode.SILENCE).voice(800).quiet(400).final("hello")
    assert "turn.end" not in call.names()
    call.quiet(500)
    assert call.names()[-1] == "turn.end"
    assert "turn.pause" not in call.names()
    assert not any(isinstance(output, AskModel) for _, output in call.log)


def test_native_mode_trusts_the_endpoint_of_the_recogniser() -> None:
    call = line(TurnMode.NATIVE).voice(800).quiet(400)
    call.turns.transcript(Transcript("book a table", is_final=True))
    call.quiet(600)
    assert "turn.end" not in call.names()
    call.turns.transcript(Transcript("", is_final=True, speech_final=True))
    call.quiet(64)
    assert call.last("turn.end")["text"] == "book a table"
    assert not any(isinstance(output, AskModel | AskFinal) for _, output in call.log)


def test_an_unsure_model_is_asked_again_only_when_that_was_configured() -> None:
    once = line().voice(800).quiet(400).final("I would like").verdict(0.1).quiet(1500)
    assert sum(isinstance(output, AskModel) for _, output in once.log) == 1
    again = line(recheck_ms=500).voice(800).quiet(400).final("I would like").verdict(0.1).quiet(1150)
    assert sum(isinstance(output, AskModel) for _, output in again.log) == 3
    assert again.verdict(0.9).last("turn.end")["text"] == "I would like"
