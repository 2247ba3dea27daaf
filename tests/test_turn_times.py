"""Latency records from timelines: which turns are told, and what their steps count from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pipelines.turn_times import Milestones, TurnRecord, TurnTimes
from wire.events import BotFinished, BotInterrupted, BotSpeaking, TurnContinued, TurnEnd, UserMessage


@dataclass
class Time:
    """A clock that is told the time."""

    at: float = 0.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at


class Story:
    """A call told by what happened when (seconds); `records` are the turns that were told."""

    def __init__(self) -> None:
        self.clock = Time()
        self.times = TurnTimes(self.clock)
        self.records: list[TurnRecord] = []
        self.times.listen(self.records.append)

    def user_message(self, at: float, message_id: str = "u1") -> None:
        self.clock.at = at
        self.times.deliver(UserMessage(message_id=message_id, turn_id=1, text="", confidence=1.0))

    def turn_end(self, at: float, latency_ms: int, message_id: str = "u1", turn_id: int = 1) -> None:
        self.clock.at = at
        self.times.deliver(
            TurnEnd(turn_id=turn_id, message_id=message_id, text="", probability=1.0, latency_ms=latency_ms)
        )

    def continued(self, at: float) -> None:
        self.clock.at = at
        self.times.deliver(TurnContinued(turn_id=1, timestamp=at))

    def bot_speaks(self, at: float, message_id: str) -> None:
        self.clock.at = at
        self.times.deliver(BotSpeaking(message_id=message_id, text=""))

    def bot_stops(self, at: float, message_id: str) -> None:
        self.clock.at = at
        self.times.deliver(BotInterrupted(message_id=message_id, played_ms=0, words_spoken=0, reason="user_spoke"))

    def bot_finishes(self, at: float, message_id: str) -> None:
        self.clock.at = at
        self.times.deliver(BotFinished(message_id=message_id, text="", duration_ms=0))

    def answer_heard(self, at: float, in_reply_to: str = "u1", *, proactive: bool = False, **steps: float) -> None:
        """A message reaches the caller's ear; `steps` are its earlier milestones."""
        self.clock.at = at
        steps = {"worded": at - 0.3, "voiced": at - 0.25, "sounded": at - 0.1, "sent": at - 0.05, **steps}
        milestones = Milestones(**{**steps, "heard": at})  # pyright: ignore[reportArgumentType] all are seconds
        self.times.reached(in_reply_to, milestones, proactive=proactive)


def test_every_step_of_an_answered_turn_is_told_in_ms_from_the_end_of_speech() -> None:
    story = Story()
    story.user_message(10.3)
    story.turn_end(10.7, latency_ms=700)
    story.answer_heard(11.2, asked=10.31, worded=10.65, voiced=10.8, sounded=10.95, sent=11.0)
    [record] = story.records
    assert record.moments() == {
        "final_text": 300,
        "decision": 700,
        "asked": 310,
        "first_token": 650,
        "first_sentence": 800,
        "first_speech": 950,
        "first_sent": 1000,
        "audible": 1200,
    }
    assert record.numbers() == {
        "turn_id": 1,
        "tool_rounds": 0,
        **{f"{name}_ms": value for name, value in record.moments().items()},
    }


def test_steps_that_there_were_not_are_left_out() -> None:
    story = Story()
    story.turn_end(10.7, latency_ms=700)
    story.clock.at = 11.0
    story.times.reached("u1", Milestones(worded=10.9, sent=11.0), proactive=True)
    [record] = story.records
    assert record.moments() == {"final_text": 700, "decision": 700, "first_token": 900, "first_sent": 1000}


def greeting(story: Story) -> None:
    story.bot_speaks(0.5, "g")
    story.answer_heard(0.6, "")
    story.bot_finishes(3.0, "g")


def never_answered(story: Story) -> None:
    story.turn_end(10.7, latency_ms=700)
    story.turn_end(60.0, latency_ms=700, message_id="u2", turn_id=2)


def proactive_minutes_later(story: Story) -> None:
    story.turn_end(10.7, latency_ms=700)
    story.answer_heard(190.0, "", proactive=True)


def proactive_queued_before_the_turn_ended(story: Story) -> None:
    story.turn_end(10.7, latency_ms=700)
    story.answer_heard(11.0, "", proactive=True, worded=9.0)


def the_server_says_something_of_its_own(story: Story) -> None:
    story.turn_end(10.7, latency_ms=700)
    story.answer_heard(11.0, "")


def continued_before_it_was_heard(story: Story) -> None:
    story.turn_end(10.7, latency_ms=700)
    story.bot_speaks(11.0, "m1")
    story.bot_stops(11.02, "m1")
    story.continued(11.02)
    story.answer_heard(11.1)


def answered_to_an_older_message(story: Story) -> None:
    story.turn_end(10.7, latency_ms=700)
    story.continued(11.0)
    story.turn_end(12.0, latency_ms=700, message_id="u2")
    story.answer_heard(12.5, "u1")


@pytest.mark.parametrize(
    "happens",
    [
        greeting,
        never_answered,
        proactive_minutes_later,
        proactive_queued_before_the_turn_ended,
        the_server_says_something_of_its_own,
        continued_before_it_was_heard,
        answered_to_an_older_message,
    ],
)
def test_what_answers_no_turn_is_no_latency(happens: Callable[[Story], None]) -> None:
    story = Story()
    happens(story)
    assert story.records == []


def test_an_answer_in_several_messages_counts_once_by_its_first() -> None:
    story = Story()
    story.turn_end(10.7, latency_ms=700)
    story.answer_heard(11.0)
    story.answer_heard(14.0)
    assert [record.audible for record in story.records] == [1000]


def test_a_continued_turn_counts_from_the_end_of_all_of_it() -> None:
    story = Story()
    story.user_message(10.3, "u1")
    story.turn_end(10.7, latency_ms=700)
    story.continued(12.0)
    story.user_message(14.4, "u2")
    story.turn_end(14.7, latency_ms=500, message_id="u2")
    story.answer_heard(15.2, "u2", asked=14.45)
    [record] = story.records
    assert (record.final_text, record.decision, record.asked, record.audible) == (200, 500, 250, 1000)


def test_an_agent_that_names_no_message_still_answers_the_turn() -> None:
    story = Story()
    story.turn_end(10.7, latency_ms=700)
    story.answer_heard(13.0, "", proactive=True, worded=12.7)
    [record] = story.records
    assert (record.first_token, record.audible) == (2700, 3000)


def test_tool_rounds_are_told_and_the_model_counts_from_its_first_request() -> None:
    story = Story()
    story.turn_end(10.7, latency_ms=700)
    story.clock.at = 15.0
    story.times.reached(
        "u1", Milestones(asked=10.4, worded=14.0, sent=14.5, heard=14.6, tool_rounds=2), proactive=False
    )
    [record] = story.records
    assert (record.tool_rounds, record.asked, record.first_token, record.audible) == (2, 400, 4000, 4600)


def test_what_was_said_during_a_long_message_waits_for_its_end_and_not_since_its_beginning() -> None:
    story = Story()
    story.bot_speaks(10.0, "m1")
    story.bot_finishes(130.0, "m1")
    # Said over the bot two minutes ago, without stopping it.
    story.turn_end(130.02, latency_ms=119_000)
    story.answer_heard(130.5)
    [record] = story.records
    assert (record.decision, record.audible) == (20, 500)


def test_a_message_that_is_dropped_unheard_moves_nothing() -> None:
    story = Story()
    story.bot_stops(10.5, "queued")
    story.turn_end(10.7, latency_ms=700)
    story.answer_heard(11.0)
    assert [record.decision for record in story.records] == [700]


def test_no_step_is_negative_when_the_model_was_asked_before_the_last_sound_of_the_user() -> None:
    story = Story()
    story.user_message(10.0)
    story.turn_end(10.7, latency_ms=200)
    story.answer_heard(11.0, asked=10.01, worded=10.3, voiced=10.35)
    [record] = story.records
    assert all(value >= 0 for value in record.moments().values())
    assert (record.final_text, record.asked, record.decision, record.audible) == (0, 0, 200, 500)


def test_each_turn_is_told_with_its_own_steps() -> None:
    story = Story()
    for turn in range(1, 4):
        start = turn * 20.0
        story.user_message(start + 0.3, f"u{turn}")
        story.turn_end(start + 0.7, 700, f"u{turn}", turn)
        story.bot_speaks(start + 0.95, f"m{turn}")
        story.answer_heard(start + 1.0, f"u{turn}")
        story.bot_finishes(start + 4.0, f"m{turn}")
    assert [(record.turn_id, record.final_text, record.audible) for record in story.records] == [
        (turn, 300, 1000) for turn in (1, 2, 3)
    ]
