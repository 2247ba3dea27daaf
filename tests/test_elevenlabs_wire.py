"""ElevenLabs' messages and word times: pure, table by table."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from providers.base import MULAW_8K, PCM_16K, AudioFormat, Encoding, TimedWord
from providers.elevenlabs_wire import (
    Alignment,
    WordTimes,
    begin_context,
    close_context,
    failure,
    keep_alive,
    output_for,
    read_message,
    speak,
    speech_url,
)
from providers.errors import ProviderError, RateLimited, Refused, Unavailable
from wire.config import ElevenLabsVoice

VOICE = ElevenLabsVoice(voice_id="a/b c")


def _query(voice: ElevenLabsVoice, output: AudioFormat = MULAW_8K) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(speech_url("wss://host/", voice, output)).query))


def _pcm(rate: int) -> AudioFormat:
    return AudioFormat(Encoding.PCM16, rate)


@pytest.mark.parametrize(
    ("preferred", "output", "name"),
    [
        (MULAW_8K, MULAW_8K, "ulaw_8000"),
        (PCM_16K, PCM_16K, "pcm_16000"),
        (_pcm(24000), _pcm(24000), "pcm_24000"),
        (_pcm(48000), _pcm(44100), "pcm_44100"),
        (_pcm(12000), _pcm(16000), "pcm_16000"),
    ],
)
def test_output_is_what_was_asked_for_or_the_next_better(
    preferred: AudioFormat, output: AudioFormat, name: str
) -> None:
    assert output_for(preferred) == output
    assert _query(VOICE, output)["output_format"] == name


def test_address_names_voice_model_and_latency_options() -> None:
    url = speech_url("wss://api.elevenlabs.io", VOICE, MULAW_8K)
    assert url.startswith("wss://api.elevenlabs.io/v1/text-to-speech/a%2Fb%20c/multi-stream-input?")
    assert _query(VOICE) == {
        "model_id": "eleven_flash_v2_5",
        "output_format": "ulaw_8000",
        "auto_mode": "true",
        "sync_alignment": "true",
        "inactivity_timeout": "180",
    }


def test_language_goes_only_to_models_that_take_it() -> None:
    assert _query(ElevenLabsVoice(voice_id="v", language="pt-BR"))["language_code"] == "pt"
    multilingual = ElevenLabsVoice(voice_id="v", language="pt", model="eleven_multilingual_v2")
    assert "language_code" not in _query(multilingual)


@pytest.mark.proves("row-90")
def test_settings_out_of_range_are_clamped() -> None:
    wild = ElevenLabsVoice(voice_id="v", speed=3.0, stability=-1.0, similarity_boost=2.0, style=9.0)
    assert json.loads(begin_context("u1", wild)) == {
        "context_id": "u1",
        "text": " ",
        "voice_settings": {
            "stability": 0.0,
            "similarity_boost": 1.0,
            "style": 1.0,
            "use_speaker_boost": True,
            "speed": 1.2,
        },
    }


def test_messages_of_a_context() -> None:
    assert json.loads(speak("u1", "Hello there.")) == {"context_id": "u1", "text": "Hello there. ", "flush": True}
    assert json.loads(close_context("u1")) == {"context_id": "u1", "close_context": True}
    assert json.loads(keep_alive("u1")) == {"context_id": "u1", "text": ""}
    assert json.loads(keep_alive(None)) == {"text": ""}


@pytest.mark.parametrize(
    ("frame", "context", "final", "audio"),
    [
        ('{"audio":"AAE=","contextId":"a","isFinal":null,"alignment":null,"x":1}', "a", False, b"\0\1"),
        ('{"audio":null,"context_id":"b","is_final":true}', "b", True, None),
        ('{"type":"flush_done"}', None, False, None),
    ],
)
def test_both_spellings_are_read(frame: str, context: str | None, final: bool, audio: bytes | None) -> None:
    message = read_message(frame)
    assert (message.context, message.final, message.audio) == (context, final, audio)


@pytest.mark.parametrize(
    ("name", "detail", "kind"),
    [
        ("max_active_conversations", "Maximum simultaneous contexts per WebSocket", Unavailable),
        ("A voice with voice_id x does not exist", "", Refused),
        ("invalid_api_key", "", Refused),
        ("quota_exceeded", "This request exceeds your quota", Refused),
        ("too_many_concurrent_requests", "", RateLimited),
        ("system_busy", "", RateLimited),
        ("input_timeout_exceeded", "no input within 20 s", Unavailable),
        ("something new", "", Unavailable),
    ],
)
def test_errors_are_told_apart(name: str, detail: str, kind: type[ProviderError]) -> None:
    error = failure(name, detail)
    assert type(error) is kind
    assert error.code == "TTS_ERROR"


# --- word times ---


def _aligned(text: str, start: float = 0, each: float = 100, **fields: Any) -> Alignment:
    times = [start + number * each for number in range(len(text))]
    plain = {"charStartTimesMs": times, "charDurationsMs": [each] * len(text)}
    return msgspec.convert({"chars": list(text), **(fields or plain)}, Alignment)


def _words(*chunks: Alignment | None, text: str = "", chunk_ms: float = 1000) -> list[tuple[str, int, int]]:
    times = WordTimes()
    times.expect(text)
    words: list[TimedWord] = []
    for number, chunk in enumerate(chunks):
        words += times.feed(chunk, number * chunk_ms, (number + 1) * chunk_ms)
    words += times.finish(len(chunks) * chunk_ms)
    return [(word.word, word.start_ms, word.end_ms) for word in words]


def test_words_end_at_spaces_and_keep_their_punctuation() -> None:
    assert _words(_aligned("Hi, you! ")) == [("Hi,", 0, 300), ("you!", 400, 800)]


@pytest.mark.parametrize(
    ("second_start", "begins"),
    [(0, 1000), (1000, 1000), (970, 970)],
    ids=["of the chunk", "of the context", "of the context, rounded"],
)
def test_times_of_the_chunk_and_of_the_context_are_both_understood(second_start: float, begins: int) -> None:
    words = _words(_aligned("One two th"), _aligned("ree four. ", start=second_start))
    assert words == [
        ("One", 0, 300),
        ("two", 400, 700),
        ("three", 800, begins + 300),
        ("four.", begins + 400, begins + 900),
    ]


def test_a_third_chunk_is_still_placed_right_when_times_are_of_the_chunk() -> None:
    words = _words(_aligned("One two t "), _aligned("three four"), _aligned(" five. "))
    assert words[-2:] == [("four", 1600, 2000), ("five.", 2100, 2600)]


def test_chunk_times_follow_audio_that_had_no_alignment() -> None:
    assert _words(_aligned("One. "), None, _aligned("Two. "))[-1] == ("Two.", 2000, 2400)


def test_a_word_is_given_with_the_audio_in_which_it_begins() -> None:
    times = WordTimes()
    aligned = _aligned("One two three ", each=200)
    assert [word.word for word in times.feed(aligned, 0, 1000)] == ["One", "two"]
    assert [word.word for word in times.feed(None, 1000, 2000)] == ["three"]


def test_no_word_reaches_beyond_the_audio() -> None:
    assert _words(_aligned("One twelve", each=200)) == [("One", 0, 600), ("twelve", 800, 1000)]


def test_a_missing_space_between_sentences_does_not_glue_words() -> None:
    words = _words(_aligned("All good."), _aligned("Bye now."), text="All good. Bye now. ")
    assert [word for word, _, _ in words] == ["All", "good.", "Bye", "now."]


def test_other_spelling_of_the_times_is_read() -> None:
    spelt = _aligned("Hi ", charsStartTimesMs=[0, 50, 100], charsDurationsMs=[50, 50, 50])
    assert _words(spelt) == [("Hi", 0, 100)]


def test_without_any_alignment_words_are_spread_over_the_audio() -> None:
    words = _words(None, None, text="One two.")
    assert [word for word, _, _ in words] == ["One", "two."]
    assert words[0][1] == 0
    assert words[-1][2] == 2000


def test_an_alignment_of_unequal_lists_is_ignored() -> None:
    assert _words(_aligned("Hi ", charStartTimesMs=[0, 50], charDurationsMs=[50]), text="Hi") == [("Hi", 0, 1000)]
