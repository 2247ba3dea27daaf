"""The watchdogs of a call, to the second."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipelines.limits import IdleWarning, SessionClock, Timeout, TimeoutReason
from wire.config import SessionLimits

_START = 1000.0
_IDLE, _MAX = Timeout(TimeoutReason.IDLE), Timeout(TimeoutReason.MAX_DURATION)
_Scene = list[tuple[float, str]]
_Due = list[tuple[float, IdleWarning | Timeout]]


def _limits(longest: int, idle: int, warning: int, grace: int) -> SessionLimits:
    return SessionLimits(
        max_duration_seconds=longest, idle_timeout_seconds=idle, idle_warning_seconds=warning, idle_grace_seconds=grace
    )


def _play(limits: SessionLimits, scene: Sequence[tuple[float, str]] = (), seconds: float = 7200.0) -> _Due:
    """What a call hears of its clock when it wakes exactly at the deadlines; times from the start of the call."""
    clock = SessionClock(limits, _START)
    due: _Due = []

    def run(until: float, now: float) -> None:
        while (at := clock.next_deadline(now)) is not None and at <= until:
            assert clock.advance(at - 0.01) == []
            due.extend((round(at - _START, 6), event) for event in clock.advance(at))
            now = at

    now = _START
    for at, what in scene:
        run(_START + at, now)
        now = _START + at
        match what:
            case "speaks":
                clock.user_activity(now)
            case "freeze" | "thaw":
                clock.frozen(what == "freeze", now)
            case _:
                raise AssertionError(what)
    run(_START + seconds, now)
    return due


_DEFAULT: _Due = [(45, IdleWarning(15, 60)), (60, IdleWarning(10, 60)), (70, _IDLE)]


@pytest.mark.proves("row-94", "row-98", "row-100")
def test_silence_is_warned_of_twice_and_then_ends_the_call() -> None:
    assert _play(SessionLimits()) == _DEFAULT


@pytest.mark.proves("row-94")
def test_a_call_lasts_ten_minutes_by_default() -> None:
    assert _play(SessionLimits(), [(0, "freeze")]) == [(600, _MAX)]


@pytest.mark.proves("row-95")
def test_given_limits_leave_the_others_at_their_defaults() -> None:
    limits = SessionLimits(idle_timeout_seconds=30, idle_grace_seconds=5)
    assert _play(limits) == [(15, IdleWarning(15, 30)), (30, IdleWarning(5, 30)), (35, _IDLE)]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param(_limits(0, 0, 15, 10), [], id="everything off"),
        pytest.param(_limits(300, 0, 15, 10), [(300, _MAX)], id="idle off"),
        pytest.param(_limits(0, 60, 15, 10), _DEFAULT, id="max off"),
        pytest.param(_limits(0, 60, 0, 10), [(60, IdleWarning(10, 60)), (70, _IDLE)], id="no first warning"),
        pytest.param(_limits(0, 60, 15, 0), [(45, IdleWarning(15, 60)), (60, _IDLE)], id="no grace"),
        pytest.param(_limits(0, 60, 0, 0), [(60, _IDLE)], id="neither"),
        pytest.param(_limits(0, 10, 15, 0), [(1, IdleWarning(9, 10)), (10, _IDLE)], id="warning longer than timeout"),
        pytest.param(_limits(0, 1, 15, 0), [(1, _IDLE)], id="no room for a warning"),
        pytest.param(_limits(0, 6, 3, 2), [(3, IdleWarning(3, 6)), (6, IdleWarning(2, 6)), (8, _IDLE)], id="short"),
        pytest.param(_limits(50, 60, 15, 10), [(45, IdleWarning(15, 60)), (50, _MAX)], id="max between warnings"),
    ],
)
@pytest.mark.proves("row-97", "row-99", "row-100")
def test_each_limit_can_be_changed_or_switched_off(limits: SessionLimits, expected: _Due) -> None:
    assert _play(limits) == expected


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        pytest.param(
            [(10, "freeze"), (15, "thaw")],
            [(50, IdleWarning(15, 60)), (65, IdleWarning(10, 60)), (75, _IDLE)],
            id="5 s of speech shift the end by 5 s",
        ),
        pytest.param(
            [(46, "freeze"), (49, "thaw")],
            [(45, IdleWarning(15, 60)), (63, IdleWarning(10, 60)), (73, _IDLE)],
            id="are you still there: no second warning",
        ),
        pytest.param(
            [(65, "freeze"), (65, "freeze"), (66.5, "thaw"), (66.5, "thaw")],
            [(45, IdleWarning(15, 60)), (60, IdleWarning(10, 60)), (71.5, _IDLE)],
            id="in the grace",
        ),
    ],
)
@pytest.mark.proves("row-103")
def test_what_freezes_the_silence_does_not_reset_it(scene: _Scene, expected: _Due) -> None:
    assert _play(SessionLimits(), scene) == expected


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        pytest.param([(44, "speaks")], [(at + 44, event) for at, event in _DEFAULT], id="before the warning"),
        pytest.param(
            [(50, "speaks")], [_DEFAULT[0], *((at + 50, event) for at, event in _DEFAULT)], id="between warnings"
        ),
        pytest.param(
            [(69, "speaks")], [*_DEFAULT[:2], *((at + 69, event) for at, event in _DEFAULT)], id="in the last second"
        ),
        pytest.param([(71, "speaks")], _DEFAULT, id="too late"),
        pytest.param(
            [(10, "freeze"), (12, "speaks"), (20, "thaw")],
            [(at + 20, event) for at, event in _DEFAULT],
            id="silence begins where the user's speech ends",
        ),
    ],
)
@pytest.mark.proves("row-104")
def test_the_user_speaking_starts_the_silence_anew(scene: _Scene, expected: _Due) -> None:
    assert _play(SessionLimits(), scene) == expected


@pytest.mark.proves("row-102")
def test_the_longest_duration_holds_however_lively_the_call() -> None:
    lively: _Scene = [(float(at), "speaks") for at in range(5, 595, 5)]
    assert _play(SessionLimits(), lively) == [(600, _MAX)]


def test_nothing_follows_a_timeout() -> None:
    clock = SessionClock(_limits(70, 60, 0, 0), 0.0)
    assert clock.advance(65.0) == [_IDLE]
    clock.user_activity(66.0)
    assert clock.advance(10_000.0) == []
    assert clock.next_deadline(66.0) is None


def test_one_late_look_tells_everything_in_order() -> None:
    clock = SessionClock(SessionLimits(), 0.0)
    assert clock.advance(10_000.0) == [event for _, event in _DEFAULT]


def test_new_limits_count_the_silence_so_far() -> None:
    clock = SessionClock(SessionLimits(), 0.0)
    clock.configure(_limits(0, 30, 10, 0), 15.0)
    assert clock.next_deadline(15.0) == 20.0
    assert clock.advance(20.0) == [IdleWarning(10, 30)]
    clock.configure(_limits(0, 100, 10, 0), 25.0)
    assert clock.advance(99.0) == []
    assert clock.advance(100.0) == [_IDLE]
