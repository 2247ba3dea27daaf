"""Keys as tones: every key in every line's format, pauses, and what is no key."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pipelines.audio import ulaw
from pipelines.audio.dtmf import MAX_SECONDS, check_keys, tones
from pipelines.audio.levels import energy_db
from providers.base import MULAW_8K, AudioFormat, Encoding
from tests.goertzel import tones as decoded

ALL = "1234567890*#ABCD"


def heard(keys: str) -> str:
    return "".join(tone.key for tone in decoded(tones(keys, MULAW_8K)))


@pytest.mark.proves("row-50")
def test_every_key_is_heard_as_that_key() -> None:
    assert heard(ALL) == ALL
    assert heard("11") == "11"


def test_a_key_sounds_for_100_ms_at_10_db_below_full_scale_and_is_silent_for_100_more() -> None:
    first, second = decoded(tones("70", MULAW_8K))
    assert first.seconds == pytest.approx(0.1, abs=0.011)
    assert second.at - first.at == pytest.approx(0.2, abs=0.011)
    assert first.level_db == pytest.approx(-10, abs=0.5)
    assert len(tones("7", MULAW_8K)) == 1600


def test_w_is_half_a_second_and_a_comma_two() -> None:
    one, two, three = decoded(tones("1w2,3", MULAW_8K))
    assert two.at - one.at == pytest.approx(0.7, abs=0.011)
    assert three.at - two.at == pytest.approx(2.2, abs=0.011)


def test_other_lines_get_the_same_tones_in_their_own_format() -> None:
    for rate in (16_000, 24_000, 48_000):
        line = AudioFormat(Encoding.PCM16, rate)
        pcm = tones("9", line)
        assert line.duration_ms(len(pcm)) == 200
        every = np.frombuffer(pcm, dtype=np.int16)[:: rate // 8000]
        (tone,) = decoded(ulaw.encode(every.tobytes()))
        assert tone.key == "9"
    assert energy_db(tones("9", AudioFormat(Encoding.PCM16, 16_000))[:3200]) == pytest.approx(-10, abs=0.5)


def test_small_letters_are_the_same_keys() -> None:
    assert check_keys("ab#cdw,1") == "AB#CDw,1"


@pytest.mark.parametrize(
    ("digits", "complaint"),
    [
        ("", "at least one key"),
        ("12x", "'X' is no key"),
        ("1 2", "' ' is no key"),
        ("+49", "'+' is no key"),
        ("W", "'W' is no key"),
        ("１", "is no key"),
        ("," * 31, f"at most {MAX_SECONDS:g} s"),
        ("1" * 301, f"at most {MAX_SECONDS:g} s"),
    ],
)
def test_what_is_no_key_is_refused_by_the_fields_name(digits: str, complaint: str) -> None:
    with pytest.raises(ValueError, match="^digits: .*" + re.escape(complaint)):
        check_keys(digits)
