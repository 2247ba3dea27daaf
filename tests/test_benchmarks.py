"""The phone benchmark measures what it says; how fast anything is, is not tested here."""

from __future__ import annotations

import pytest

from benchmarks.phone import SCENARIOS, Result, Scene, measure, table
from benchmarks.phone_figures import pacing_errors, response_times, spread

COLUMNS = 9


def paced(count: int = 50, start: float = 0.0) -> list[tuple[float, int]]:
    """140 ms at once, then 60 ms every 60 ms."""
    return [(start, 160), (start, 480), (start, 480), *((start + 0.06 * index, 480) for index in range(1, count))]


def test_pacing_error_is_the_distance_from_the_usual_lead() -> None:
    assert max(pacing_errors(paced(), 0.0)) == pytest.approx(0.0, abs=1e-9)
    late = [(at + (0.03 if index == 40 else 0.0), size) for index, (at, size) in enumerate(paced())]
    errors = pacing_errors(late, 0.0)
    assert max(errors) == pytest.approx(0.03)
    assert sum(error > 0.001 for error in errors) == 1


def test_a_hole_in_the_speech_is_an_error_and_not_a_new_reply() -> None:
    stalled = [(at + (0.3 if at > 2.0 else 0.0), size) for at, size in paced()]
    assert max(pacing_errors(stalled, 0.0)) == pytest.approx(0.3)


def test_the_burst_at_the_start_and_the_time_before_the_window_are_not_pacing() -> None:
    assert len(pacing_errors(paced(), 0.0)) == 41
    assert len(pacing_errors(paced(), 2.0)) == 16


def test_each_stretch_of_speech_has_its_own_schedule() -> None:
    steady_but_nearer = [(at - 0.02, size) if at > 10.1 else (at, size) for at, size in paced(start=10.0)]
    assert max(pacing_errors([*paced(), *steady_but_nearer], 0.0)) == pytest.approx(0.0, abs=1e-9)


def test_a_turn_without_a_reply_is_counted_and_not_measured() -> None:
    assert response_times([1.0, 6.0, 12.0], [1.004, 12.25]) == pytest.approx([0.004, None, 0.25])


def test_quantiles_are_values_that_occurred() -> None:
    seen = spread([0.001 * value for value in range(1, 101)])
    assert seen is not None
    assert (seen.count, seen.p50, seen.p99, seen.worst) == pytest.approx((100, 51.0, 100.0, 100.0))
    assert spread([]) is None


def test_the_table_has_a_row_a_result_and_says_what_went_unanswered() -> None:
    seen = spread([0.002])
    result = Result(SCENARIOS[-1], 20, 5.0, 0.1, 0.5, seen, seen, None, seen, unanswered=3)
    lines = table([result, result]).splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {COLUMNS + 1}
    assert "(1, 3 unanswered)" in lines[2]


@pytest.mark.timeout(120)
async def test_a_short_run_of_each_scene_measures_a_real_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.phone.WARM_UP_S", {Scene.IDLE: 0.0, Scene.TURNS: 0.0, Scene.TALKING: 4.5})
    seconds = {Scene.IDLE: 1.0, Scene.TURNS: 9.0, Scene.TALKING: 2.0}
    one_of_each = list({one.scene: one for one in SCENARIOS}.values())
    # One after the other: each starts two processes, and the suite has other work for both cores.
    results = [await measure(one, 2, seconds[one.scene], None) for one in one_of_each]
    assert len(table(results).splitlines()) == 2 + len(one_of_each)
    for result in results:
        assert result.cpu_ms > 0
        assert result.lag is not None
        assert result.load_lag is not None
        assert (result.pacing is not None) == (result.scenario.scene is Scene.TALKING), result
        if result.scenario.scene is Scene.TURNS:
            # Not all: where six servers start at once on a busy machine, an answer may take longer than counts as one.
            assert result.response is not None, result
            assert result.response.count > result.unanswered, result
