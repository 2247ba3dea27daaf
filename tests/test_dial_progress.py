"""A dial's states and deadlines: tables, no clock."""

from __future__ import annotations

import itertools

import pytest

from server.dial_progress import (
    CONNECT_SECONDS,
    NO_ANSWER_SECONDS,
    NO_STREAM,
    NOBODY_ANSWERED,
    STREAM_SECONDS,
    DialProgress,
    DialState,
)

STORY = ("initiated", "ringing", "in-progress")


def placed() -> DialProgress:
    progress = DialProgress(100.0)
    assert progress.placed()
    return progress


@pytest.mark.parametrize("told", list(itertools.permutations(STORY * 2, 4)))
def test_a_dial_never_goes_back_in_whatever_order_it_is_told(told: tuple[str, ...]) -> None:
    progress = placed()
    seen = [progress.state]
    for status in told:
        assert progress.told(status, 101.0) is None
        seen.append(progress.state)
    assert seen == sorted(seen)
    furthest = max(STORY.index(status) for status in told)
    assert progress.state is (DialState.DIALING, DialState.RINGING, DialState.ANSWERED)[furthest]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("busy", "busy"),
        ("no-answer", "no-answer"),
        ("canceled", "canceled"),
        ("failed", "failed"),
        ("completed", "failed"),
    ],
)
@pytest.mark.parametrize("before", [(), STORY])
def test_a_final_status_names_the_reason_from_any_state(status: str, reason: str, before: tuple[str, ...]) -> None:
    progress = placed()
    for earlier in before:
        progress.told(earlier, 101.0)
    outcome = progress.told(status, 102.0)
    assert outcome is not None
    assert outcome.reason == reason
    assert progress.end()
    assert not progress.end()
    assert progress.told(status, 103.0) is None


def test_what_nobody_knows_changes_nothing() -> None:
    progress = placed()
    assert progress.told("teleported", 101.0) is None
    assert progress.state is DialState.DIALING


def test_after_the_stream_no_status_counts() -> None:
    progress = placed()
    progress.connected()
    assert progress.told("busy", 101.0) is None
    assert not progress.end()
    assert progress.state is DialState.CONNECTED
    with pytest.raises(RuntimeError):
        progress.connected()


def test_a_dial_that_ended_never_connects() -> None:
    progress = placed()
    progress.end()
    with pytest.raises(RuntimeError):
        progress.connected()
    assert not progress.placed()


def test_an_answer_in_time_has_its_stream_waited_for_but_no_longer_than_the_app_waits() -> None:
    progress = placed()
    assert progress.deadline() == (100 + NO_ANSWER_SECONDS, NOBODY_ANSWERED)
    progress.told("ringing", 105.0)
    assert progress.deadline() == (100 + NO_ANSWER_SECONDS, NOBODY_ANSWERED)
    progress.told("in-progress", 110.0)
    progress.told("in-progress", 117.0)
    assert progress.deadline() == (110 + STREAM_SECONDS, NO_STREAM)
    late = placed()
    late.told("in-progress", 127.0)
    assert late.deadline() == (100 + CONNECT_SECONDS, NO_STREAM)
    assert NO_ANSWER_SECONDS < CONNECT_SECONDS < 30
