"""The two gates of an interruption, as timelines of 20 ms frames, and what happens when it was an acknowledgement."""

from __future__ import annotations

import pytest

from pipelines.listening.directives import Output, ResumeBot, StopBot
from pipelines.listening.interruption import InterruptionGate
from pipelines.listening.native import NativeTurns
from pipelines.listening.turn import TurnMachine, TurnRules
from providers.base import NativeTurn, TurnMoment
from wire.config import InterruptionConfig
from wire.events import TurnEnd, UserMessage

FRAME = 20


class Gate:
    """A gate that hears voice and quiet; the bot has been heard for long."""

    def __init__(self, config: InterruptionConfig | None = None) -> None:
        self.gate = InterruptionGate(config or InterruptionConfig(), "en")

    def voice(self, ms: int, db: float = -20.0, sure: float = 0.95) -> Gate:
        for _ in range(ms // FRAME):
            self.gate.voice(FRAME, sure, db)
        return self

    def closure(self, ms: int) -> Gate:
        """Quiet in which the detector still hears a voice."""
        return self.voice(ms, -60.0)

    def quiet(self, ms: int) -> Gate:
        return self.voice(ms, -60.0, 0.1)

    def words(self, text: str) -> Gate:
        self.gate.text(text, 5000, greeting=False)
        return self

    @property
    def open(self) -> bool:
        return self.gate.open(5000, greeting=False)


def test_a_voice_without_words_must_outlast_an_acknowledgement() -> None:
    assert not Gate().voice(480).open
    assert Gate().voice(500).open


def test_a_word_of_substance_shortens_the_wait() -> None:
    assert not Gate().voice(300).open
    assert Gate().voice(300).words("no").open
    assert not Gate().voice(300).words("mm-hm").open
    assert not Gate().voice(280).words("no").open


def test_lips_that_close_do_not_start_the_voice_again() -> None:
    assert Gate().voice(240).closure(160).voice(100).open
    assert not Gate().voice(240).quiet(160).voice(100).open


def test_a_pause_after_a_word_of_substance_does_not_start_the_voice_again() -> None:
    assert Gate().voice(200).quiet(300).words("no").voice(100).open
    assert not Gate().voice(200).quiet(300).voice(100).open
    assert not Gate().voice(200).quiet(600).words("no").voice(100).open, "too long ago"


def test_explicit_limits_are_kept_to_the_frame() -> None:
    strict = InterruptionConfig(min_duration_ms=400, energy_threshold_db=-30.0, backchannel_filter=False)
    assert Gate(strict).voice(400, -29.0).open
    assert not Gate(strict).voice(380, -29.0).open
    assert not Gate(strict).voice(2000, -31.0).open


class Native:
    """A bot that speaks, and a recogniser with turns of its own."""

    def __init__(self) -> None:
        rules = TurnRules(language="en", gate=InterruptionGate(InterruptionConfig(), "en"), new_id=lambda: "u1")
        self.turns = NativeTurns(TurnMachine(rules), "en")
        self.out: list[Output] = []
        self.now = 0
        self.turns.machine.bot_audible(0, greeting=False)
        self.line(3000, -60.0)

    def line(self, ms: int, db: float) -> Native:
        for _ in range(ms // FRAME):
            self.now += FRAME
            self.turns.level(self.now, FRAME, db)
            self.out += self.turns.take()
        return self

    def tell(self, moment: TurnMoment, text: str) -> Native:
        self.turns.turn(NativeTurn(moment, text, 0))
        self.out += self.turns.take()
        return self

    def stopped(self) -> bool:
        return any(isinstance(output, StopBot) for output in self.out)


def test_the_voice_that_led_to_the_first_word_counts_when_the_word_is_known() -> None:
    call = Native().line(320, -22.0)
    assert not call.stopped()
    assert call.tell(TurnMoment.START, "no").stopped()


def test_a_first_word_without_a_voice_to_go_with_it_does_not_stop_the_bot() -> None:
    assert not Native().tell(TurnMoment.START, "no").stopped()
    assert not Native().line(320, -43.0).tell(TurnMoment.START, "no").stopped(), "too soft"


@pytest.mark.proves("row-78")
def test_a_bot_that_a_long_acknowledgement_stopped_speaks_on_and_no_turn_comes_of_it() -> None:
    call = Native().line(300, -22.0).tell(TurnMoment.START, "okay").line(400, -22.0)
    assert call.stopped()
    machine = call.turns.machine
    machine.bot_stopped(call.now, 3000, resumable=True)
    call.tell(TurnMoment.UPDATE, "okay okay").tell(TurnMoment.EAGER_END, "okay okay").tell(TurnMoment.END, "okay okay")
    assert [type(output) for output in call.out if isinstance(output, ResumeBot | TurnEnd | UserMessage)] == [ResumeBot]
    assert not machine.user_has_floor


def test_words_of_substance_after_an_acknowledgement_are_a_turn() -> None:
    call = Native().line(300, -22.0).tell(TurnMoment.START, "okay").line(400, -22.0)
    call.turns.machine.bot_stopped(call.now, 3000, resumable=True)
    call.tell(TurnMoment.UPDATE, "okay but wait").tell(TurnMoment.END, "okay but wait a moment")
    assert [output.text for output in call.out if isinstance(output, TurnEnd)] == ["okay but wait a moment"]
    assert not any(isinstance(output, ResumeBot) for output in call.out)
