"""The corpus of telephone scenes (docs/scenes.md): the real pipeline hears all of them, and may not get worse at it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from scripts.make_scenes import page_with
from tests.scenes.corpus import Ears, Part, Scene, families
from tests.scenes.judge import Fault, Finding, Verdict
from tests.scenes.score import PAGE, Score, floor, run, worse
from tests.scenes.sounds import NOISES, RATE, noise, speech, synthesiser
from tests.scenes.summary import told

FAMILIES = {
    "clean_turns", "hesitations", "trailing_off", "self_correction", "backchannels", "noises", "interruptions_early",
    "interruptions_late", "echo", "background", "quick_turns", "hang_up", "digits", "short_answers", "soft_speakers",
    "overlapping_ends",
}  # fmt: skip


@pytest.mark.proves("row-72", "row-78", "row-84", "row-106")
@pytest.mark.parametrize("ears", Ears)
@pytest.mark.parametrize("family", sorted(families()))
def test_callers_are_understood_no_worse_than_before(
    family: str, ears: Ears, record_property: Callable[[str, object], None]
) -> None:
    verdict, _ = run(family, ears)
    record_property(*told(family, ears, verdict))
    least = floor()
    lines = worse(f"{family}, {ears}", least.families[family][ears], verdict, same_voice=least.espeak == synthesiser())
    assert not lines, "\n".join(["the scenes score worse:", *lines])


def test_the_corpus_is_as_wide_as_it_claims() -> None:
    scenes = [scene for family in families().values() for scene in family.scene]
    assert families().keys() == FAMILIES == floor().families.keys()
    assert len(scenes) >= 40
    assert {scene.language for scene in scenes} == {"en", "es", "fr"}
    assert len({sound.voice or scene.language for scene in scenes for sound in scene.sounds if sound.text}) >= 5
    assert {sound.noise for scene in scenes for sound in scene.sounds} >= {"cough", "slam", "throat", "hum"}
    assert {scene.background.noise for scene in scenes if scene.background} == {"babble", "tv", "traffic", "hiss"}
    assert {sound.role for scene in scenes for sound in scene.sounds} == set(Part)
    assert all(60 <= scene.echo.delay_ms <= 250 for scene in scenes if scene.echo)
    names = [(family, scene.name) for family, one in families().items() for scene in one.scene]
    assert len(names) == len(set(names))


def test_the_page_shows_the_score_that_is_kept() -> None:
    assert PAGE.read_text() == page_with(PAGE.read_text(), floor())


def test_the_floor_allows_no_fault_that_a_caller_would_hang_up_for() -> None:
    for ears, total in floor().total.items():
        grave = {Fault.ECHO_INTERRUPTION, Fault.MISSED_INTERRUPTION, Fault.FALSE_RESUME, Fault.LEFT_SILENT}
        assert not grave & total.faults.keys(), ears
        assert not {Fault.PHANTOM_TURN, Fault.LOST_TURN} & total.faults.keys(), ears


def test_a_drop_is_told_with_the_scene_and_what_happened_in_it() -> None:
    least = Score(scenes=1, turn_end_ms=(500, 600))
    verdict = Verdict(1, [Finding(Fault.FALSE_INTERRUPTION, "mm-hm", "the bot stopped at 2.50 s")], [700], [])
    assert worse("backchannels", least, verdict, same_voice=True) == [
        "backchannels: 1 false interruptions, no more than 0 before",
        "    mm-hm: the bot stopped at 2.50 s",
        "backchannels: turn end takes 700 ms (median), 500 before",
        "backchannels: turn end takes 700 ms (90th percentile), 600 before",
    ]


def test_another_voice_is_not_held_to_the_milliseconds_of_this_one() -> None:
    verdict = Verdict(1, [Finding(Fault.CUT_IN, "um", "ended in the middle")], [700], [])
    assert worse("hesitations", Score(scenes=1, turn_end_ms=(500, 600)), verdict, same_voice=False) == []


def test_a_better_score_is_no_fault() -> None:
    least = Score(scenes=1, faults={Fault.CUT_IN: 2}, turn_end_ms=(500, 600))
    assert worse("hesitations", least, Verdict(1, [], [400], []), same_voice=True) == []


@pytest.mark.parametrize("name", NOISES)
def test_noises_are_the_same_every_time(name: str) -> None:
    once, again = noise(name), noise.__wrapped__(name)
    assert once.tobytes() == again.tobytes()
    assert len(once) >= 0.2 * RATE


def test_speech_stays_within_the_band_of_a_telephone() -> None:
    sound = speech("A table for four people on Friday.", "en-us")
    power = abs(np.fft.rfft(sound)) ** 2
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    assert power[hertz < 200].sum() + power[hertz > 3700].sum() < 0.001 * power.sum()


def test_a_scene_that_says_what_nobody_understands_is_refused() -> None:

    with pytest.raises(msgspec.ValidationError, match="intrrupts"):
        msgspec.convert({"name": "x", "sounds": [{"at": 0, "text": "a", "intrrupts": True}]}, Scene)
