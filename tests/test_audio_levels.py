from __future__ import annotations

import pytest

from pipelines.audio.levels import energy_db, peak, rms
from tests.speech import noise_pcm, silence_pcm, tone_pcm


@pytest.mark.parametrize("level", [-55.0, -40.0, -20.0, -3.1])
def test_a_tone_reads_its_own_level(level: float) -> None:
    assert energy_db(tone_pcm(500, 200, 8000, level)) == pytest.approx(level, abs=0.1)


def test_noise_reads_its_own_level() -> None:
    assert energy_db(noise_pcm(1000, -35)) == pytest.approx(-35, abs=0.2)


def test_the_scale_ends_at_minus_60_and_0() -> None:
    assert energy_db(b"") == energy_db(silence_pcm(20)) == energy_db(b"\1\0" * 160) == -60
    assert energy_db(b"\x00\x80" * 160) == 0


def test_peak_and_rms_of_a_square_wave_agree() -> None:
    square = (1000).to_bytes(2, "little", signed=True) + (-1000).to_bytes(2, "little", signed=True)
    assert peak(square * 80) == rms(square * 80) == 1000
    assert peak(b"") == rms(b"") == 0
