from __future__ import annotations

import pytest

from providers.local.gate import FRAME, SpeechGate
from tests.speech import frames, noise_pcm, say_pcm, silence_pcm, tone_pcm

MS = 32
"""Bytes of a millisecond."""


@pytest.mark.parametrize("quiet", [silence_pcm(5000), noise_pcm(5000, -55)])
def test_a_quiet_line_passes_nothing(quiet: bytes) -> None:
    assert SpeechGate().feed(quiet) == b""


def test_sound_passes_whole_with_300_ms_before_and_800_after_whatever_the_pieces() -> None:
    audio = silence_pcm(1000) + tone_pcm(300, 500) + silence_pcm(2000)
    expected = audio[700 * MS : 2280 * MS]
    for size in (640, 34, 5000, len(audio)):
        gate = SpeechGate()
        assert b"".join(gate.feed(piece) for piece in frames(audio, size)) == expected


def test_a_whole_sentence_passes_with_its_pauses() -> None:
    sentence = say_pcm("Hello. I would like a table, please, for four.")
    whole = sentence[: len(sentence) // FRAME * FRAME]
    assert SpeechGate().feed(silence_pcm(400) + whole).endswith(whole)


def test_a_constant_noise_stops_opening_it_but_speech_over_the_noise_does() -> None:
    gate = SpeechGate()
    gate.feed(noise_pcm(20_000, -40))
    assert gate.feed(noise_pcm(2000, -40, seed=2)) == b""
    assert len(gate.feed(tone_pcm(300, 200, level_db=-15))) == (300 + 200) * MS


def test_after_a_segment_it_waits_for_new_sound() -> None:
    gate = SpeechGate()
    gate.feed(tone_pcm(300, 200))
    gate.shut()
    assert gate.feed(silence_pcm(500)) == b""
