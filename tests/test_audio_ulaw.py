from __future__ import annotations

import numpy as np
import pytest

from pipelines.audio import ulaw
from tests.speech import tone_pcm


def test_every_byte_survives_the_round_trip_but_negative_zero() -> None:
    codes = bytes(range(256))
    again = ulaw.encode(ulaw.decode(codes))
    assert again == codes.replace(b"\x7f", b"\xff")


def test_silence_is_zero() -> None:
    assert ulaw.decode(ulaw.SILENCE * 160) == bytes(320)
    assert ulaw.encode(bytes(320)) == ulaw.SILENCE * 160


def test_a_tone_comes_back_with_38_db_of_headroom_over_its_error() -> None:
    before = np.frombuffer(tone_pcm(440, 1000, 8000), dtype=np.int16).astype(float)
    after = np.frombuffer(ulaw.decode(ulaw.encode(before.astype(np.int16).tobytes())), dtype=np.int16)
    assert 10 * np.log10((before**2).mean() / ((before - after) ** 2).mean()) > 36


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="even number"):
        ulaw.encode(b"\0\0\0")
