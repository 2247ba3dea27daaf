"""Single values: every spelling of `stt`, `voice` and `llm` that an SDK of any age sends."""

from __future__ import annotations

import pytest

from wire.config import (
    CartesiaVoice,
    ElevenLabsVoice,
    FluxStt,
    GladiaStt,
    JsonValue,
    LocalStt,
    LocalVoice,
    NovaStt,
    PollyVoice,
    SttConfig,
    TranscribeStt,
    TurnMode,
    VoiceConfig,
)
from wire.engines import build_stt, build_voice
from wire.errors import ConfigError
from wire.fields import snake
from wire.shortcuts import read_llm, read_stt, read_voice
from wire.turntaking import turn_config, vad_config

STT: list[tuple[JsonValue, SttConfig]] = [
    ("deepgram", NovaStt()),
    ("deepgram:nova-3", NovaStt()),
    ("deepgram:nova-2", NovaStt(model="nova-2")),
    ("deepgram/nova-3", NovaStt()),
    ("deepgram:nova-3:fr", NovaStt(language="fr")),
    ("deepgram:nova-3:es", NovaStt(language="es")),
    ("deepgram/nova-3:es", NovaStt(language="es")),
    ("nova-3", NovaStt()),
    ("deepgram-flux", FluxStt()),
    ("deepgram-flux:es", FluxStt(language="es")),
    ("flux", FluxStt()),
    ("Deepgram/flux", FluxStt()),
    ("deepgram/flux-en", FluxStt()),
    ("deepgram/flux-multi", FluxStt(language="multi")),
    ("deepgram:flux-general-multi:es", FluxStt(language="es")),
    ("gladia", GladiaStt()),
    ("gladia/solaria", GladiaStt(model="solaria-1")),
    ("transcribe", TranscribeStt()),
    ("transcribe:es", TranscribeStt(language="es-US")),
    ("local", LocalStt()),
    ({"provider": "deepgram/nova-3", "model": "es"}, NovaStt(language="es")),
    ({"provider": "deepgram", "model": "nova-3", "language": "es_MX"}, NovaStt(language="es-MX")),
    ({"provider": "deepgram", "language": "fr"}, NovaStt(language="fr")),
    ({"engine": "deepgram", "model": "nova-3"}, NovaStt()),
    ({"engine": "deepgram", "model": "flux"}, FluxStt()),
    ({"provider": "deepgram", "model": "flux-general-en"}, FluxStt()),
    ({"provider": "deepgram-flux", "model": "es"}, FluxStt(language="es")),
    ({"provider": "flux", "language": "de", "keyTerms": ["Acme"]}, FluxStt(language="de", keyterms=("Acme",))),
    ({"provider": "deepgram", "keywords": ["pinecall:2", "acme"]}, NovaStt(keyterms=("pinecall", "acme"))),
    (
        {"provider": "deepgram", "model": "nova-2", "keywords": ["pinecall:2"]},
        NovaStt(model="nova-2", keywords=("pinecall:2",)),
    ),
    ({"provider": "deepgram", "utterance_end_ms": 200}, NovaStt(utterance_end_ms=1000)),
    (
        {"provider": "gladia", "model": "accurate", "language": "es-AR", "endpointing": 450, "speech_threshold": 0.8},
        GladiaStt(language="es", endpointing_ms=450),
    ),
    ({"provider": "transcribe", "language": "en-US"}, TranscribeStt()),
    ({"provider": "local", "keyterms": ["two people"], "language": "en"}, LocalStt(keyterms=("two people",))),
    ({"provider": "local", "grammar": "#JSGF V1.0;"}, LocalStt(grammar="#JSGF V1.0;")),
]


@pytest.mark.proves("row-82", "row-27")
@pytest.mark.parametrize(("value", "expected"), STT)
def test_every_stt_spelling_means_one_recogniser(value: JsonValue, expected: SttConfig) -> None:
    assert build_stt(read_stt(value), "en") == expected


@pytest.mark.proves("row-85")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"eot_threshold": 0.5, "eager_eot_threshold": 0.7, "eot_timeout_ms": 2000}, (0.5, 0.5, 2000)),
        ({}, (0.7, 0.5, 1000)),
        ({"eager_eot_threshold": None}, (0.7, 0.5, 1000)),
        ({"eot_threshold": 5, "eager_eot_threshold": -1, "eot_timeout_ms": 1}, (0.9, 0.3, 500)),
        ({"eotThreshold": 0.8, "eotTimeoutMs": 99999}, (0.8, 0.5, 10_000)),
        ({"eot_threshold": 10**400}, (0.9, 0.5, 1000)),
    ],
)
def test_flux_numbers_always_suit_deepgram(given: dict[str, JsonValue], expected: tuple[float, float, int]) -> None:
    stt = build_stt(read_stt({"provider": "deepgram-flux", **given}), "en")

    assert isinstance(stt, FluxStt)
    assert (stt.eot_threshold, stt.eager_eot_threshold, stt.eot_timeout_ms) == expected


@pytest.mark.proves("row-84", "ws-36")
@pytest.mark.parametrize(
    ("value", "mode", "native_vad"),
    [
        ("deepgram-flux", TurnMode.NATIVE, True),
        ("deepgram/flux", TurnMode.NATIVE, True),
        ({"engine": "deepgram", "model": "nova-3"}, TurnMode.SMART_TURN, False),
        ({"provider": "deepgram/nova-3", "model": "es"}, TurnMode.SMART_TURN, False),
        ("gladia", TurnMode.SMART_TURN, False),
        ("transcribe", TurnMode.SMART_TURN, False),
        ("local", TurnMode.SMART_TURN, False),
    ],
)
def test_turn_detection_follows_the_recogniser(value: JsonValue, mode: TurnMode, native_vad: bool) -> None:
    stt = build_stt(read_stt(value), "en")
    assert stt is not None

    assert turn_config({}, stt).mode is mode
    assert vad_config({}, {}, stt).native is native_vad


VOICES: list[tuple[JsonValue, VoiceConfig]] = [
    ("elevenlabs:EXAVITQu4vr4xnSDxMaX", ElevenLabsVoice(voice_id="EXAVITQu4vr4xnSDxMaX", language="en")),
    ("elevenlabs/george", ElevenLabsVoice(voice_id="JBFqnCBsd6RMkjVDRZzb", language="en")),
    ("elevenlabs/a-stranger", ElevenLabsVoice(voice_id="a-stranger", language="en")),
    ("elevenlabs", ElevenLabsVoice(voice_id="EXAVITQu4vr4xnSDxMaL", language="en")),
    ("cartesia:uuid", CartesiaVoice(voice_id="uuid")),
    ("cartesia/katie", CartesiaVoice(voice_id="f786b574-daa5-4673-aa0c-cbe3e8534c02")),
    ("polly:Matthew", PollyVoice(voice_id="Matthew")),
    ("local", LocalVoice()),
    ("local:en-gb", LocalVoice(voice_id="en-gb")),
    ({"engine": "cartesia", "voiceId": "abc", "speed": 1.1}, CartesiaVoice(voice_id="abc", speed=1.1)),
    ({"provider": "elevenlabs", "alias": "Sarah"}, ElevenLabsVoice(voice_id="EXAVITQu4vr4xnSDxMaL", language="en")),
    ({"voice": "elevenlabs/george"}, ElevenLabsVoice(voice_id="JBFqnCBsd6RMkjVDRZzb", language="en")),
    (
        {"provider": "elevenlabs", "voice_id": "x", "model": "eleven_turbo_v2_5", "speed": 9, "stability": -1},
        ElevenLabsVoice(voice_id="x", model="eleven_turbo_v2_5", speed=1.2, stability=0, language="en"),
    ),
    (
        {"provider": "cartesia", "voice_id": "x", "model": "sonic", "volume": 1.0, "emotion": None, "language": "en"},
        CartesiaVoice(voice_id="x"),
    ),
    (
        {"provider": "polly", "voice_id": "Joanna", "engine": "standard", "rate": 90},
        PollyVoice(engine="standard", rate="90"),
    ),
    ({"engine": "neural"}, PollyVoice()),
    ({"engine": "standard", "voice_id": "Joey"}, PollyVoice(voice_id="Joey", engine="standard")),
    ({"engine": "polly", "language": "es-ES"}, PollyVoice(voice_id="Lucia", language="es-ES")),
    ({"provider": "local", "voice_id": "en-us", "speed": 1.2}, LocalVoice(voice_id="en-us", speed=1.2)),
]


@pytest.mark.proves("row-81", "row-83")
@pytest.mark.parametrize(("value", "expected"), VOICES)
def test_every_voice_spelling_means_one_voice(value: JsonValue, expected: VoiceConfig) -> None:
    assert build_voice(read_voice(value), "en", flash=False) == expected


@pytest.mark.parametrize(
    ("flash", "model", "expected"),
    [
        (False, None, "eleven_multilingual_v2"),
        (True, None, "eleven_flash_v2_5"),
        (False, "eleven_turbo_v2_5", "eleven_turbo_v2_5"),
    ],
)
def test_spanish_speaks_the_multilingual_model_unless_told(flash: bool, model: str | None, expected: str) -> None:
    voice = build_voice(read_voice({"provider": "elevenlabs", "model": model}), "es-ES", flash=flash)

    assert isinstance(voice, ElevenLabsVoice)
    assert (voice.model, voice.language) == (expected, "es")


LLMS: list[tuple[JsonValue, str | None, str | None]] = [
    ("openai:gpt-4.1-mini", "openai", "gpt-4.1-mini"),
    ("openai/gpt-4.1-mini", "openai", "gpt-4.1-mini"),
    ("gpt-4.1-mini", "openai", "gpt-4.1-mini"),
    ("o4-mini", "openai", "o4-mini"),
    ("mistral", "mistral", None),
    ("mistral-medium", "mistral", "mistral-medium"),
    ("ministral-8b", "mistral", "ministral-8b"),
    ("claude-sonnet-4", "anthropic", "claude-sonnet-4"),
    ("gemini:gemini-2.5-flash", "google", "gemini-2.5-flash"),
    ("grok-4", "xai", "grok-4"),
    ("openrouter/x-ai/grok-4", "openrouter", "x-ai/grok-4"),
    ("llama3", None, "llama3"),
    ({"engine": "openai", "model": "gpt-4.1"}, "openai", "gpt-4.1"),
    ({"provider": "openai", "model": "gpt-4.1"}, "openai", "gpt-4.1"),
    ({"provider": "openai", "engine": "mistral", "model": "gpt-4.1"}, "openai", "gpt-4.1"),
    ({"engine": "gpt-4.1-mini", "model": "gpt-4.1-mini", "enabled": True}, "openai", "gpt-4.1-mini"),
    ({"engine": "openai/gpt-4.1", "model": "openai/gpt-4.1"}, "openai", "gpt-4.1"),
    ({"engine": "gpt-4.1-mini"}, "openai", "gpt-4.1-mini"),
    ({"provider": "openai", "llm": "openai/gpt-4.1-nano"}, "openai", "gpt-4.1-nano"),
    ({"provider": "openrouter", "llm": "openai/gpt-4.1"}, "openrouter", "openai/gpt-4.1"),
    ({"model": "mistral-medium"}, "mistral", "mistral-medium"),
]


@pytest.mark.proves("row-13", "row-35", "row-36", "ws-35")
@pytest.mark.parametrize(("value", "provider", "model"), LLMS)
def test_every_llm_spelling_means_one_model(value: JsonValue, provider: str | None, model: str | None) -> None:
    block = read_llm(value)

    assert (block.get("provider"), block.get("model"), block.get("enabled")) == (provider, model, True)


@pytest.mark.parametrize("value", ["pinecall/gpt-realtime", {"provider": "openai", "model": "gpt-4o-realtime-preview"}])
def test_speech_to_speech_models_are_refused(value: JsonValue) -> None:
    with pytest.raises(ConfigError, match=r"^llm: speech-to-speech"):
        read_llm(value)


@pytest.mark.parametrize("value", [5, True, [], "whisper", "whisper:large", {"provider": "whisper"}, {"provider": ":"}])
def test_an_unknown_recogniser_is_refused_by_its_key(value: JsonValue) -> None:
    with pytest.raises(ConfigError) as caught:
        read_stt(value)
    assert caught.value.key == "stt"


@pytest.mark.parametrize("value", [5, True, [], ":x", "acme:x", "acme/x", {"provider": "acme"}, {"engine": "acme"}])
def test_an_unknown_voice_provider_is_refused_by_its_key(value: JsonValue) -> None:
    with pytest.raises(ConfigError) as caught:
        read_voice(value)
    assert caught.value.key == "voice"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ({"provider": "flux", "eot_threshold": "high"}, "stt.eot_threshold"),
        ({"provider": "flux", "eot_threshold": True}, "stt.eot_threshold"),
        ({"provider": "flux", "eot_timeout_ms": float("nan")}, "stt.eot_timeout_ms"),
        ({"provider": "flux", "keyterms": [1]}, "stt.keyterms"),
        ({"provider": "flux", "language": "not a language"}, "stt.language"),
        ({"provider": "deepgram", "smart_format": "yes"}, "stt.smart_format"),
        ({"provider": "local", "grammar": ["x"]}, "stt.grammar"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_its_key(value: JsonValue, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_stt(read_stt(value), "en")
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("camel", "expected"),
    [("voiceId", "voice_id"), ("voice_id", "voice_id"), ("idleTimeoutSeconds", "idle_timeout_seconds")],
)
def test_camel_case_becomes_snake_case(camel: str, expected: str) -> None:
    assert snake(camel) == expected
