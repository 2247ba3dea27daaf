"""Scopes merged into one call's configuration."""

from __future__ import annotations

import contextlib
from typing import cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.config import (
    CallConfig,
    CartesiaVoice,
    ElevenLabsVoice,
    FluxStt,
    GladiaStt,
    JsonValue,
    LocalStt,
    LocalVoice,
    NovaStt,
    SessionLimits,
    TurnMode,
)
from wire.errors import ConfigError, ProviderKeyMissing
from wire.resolve import Layer, Scope, ServerDefaults, normalise, patch, read_layer, resolve, validate

KEYS = frozenset({"deepgram-flux", "deepgram", "gladia", "elevenlabs", "cartesia", "polly", "openai", "mistral"})
FULL = ServerDefaults(keys=KEYS)
BARE = ServerDefaults(stt="local", voice="local", local_fallback=True)

Json = dict[str, JsonValue]


def call(*scopes: Json, defaults: ServerDefaults = FULL) -> CallConfig:
    return resolve([Layer(normalise(scope)) for scope in scopes], defaults)


def patched(base: Json, *updates: Json, defaults: ServerDefaults = FULL) -> CallConfig:
    layer = Layer(normalise(base))
    for update in updates:
        layer = patch(layer, Layer(normalise(update)))
    return resolve([layer], defaults)


# --- which model, and whether one at all ---


@pytest.mark.proves("row-14")
def test_a_prompt_alone_gets_the_default_model_and_flux() -> None:
    config = call({"prompt": "Be brief."})

    assert config.llm is not None
    assert (config.llm.provider, config.llm.model) == ("openai", "gpt-4.1-mini")
    assert (config.llm.temperature, config.llm.max_tokens) == (0.7, 1024)
    assert config.stt == FluxStt()
    assert config.prompt == "Be brief."


@pytest.mark.proves("row-13", "ws-35")
def test_the_deploy_of_old_clients_names_its_model_as_engine() -> None:
    config = call({"llm": {"engine": "gpt-4.1", "model": "gpt-4.1", "enabled": True, "prompt": "Hi"}})

    assert config.llm is not None
    assert (config.llm.provider, config.llm.model, config.prompt) == ("openai", "gpt-4.1", "Hi")


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"llm": {"temperature": 0.2}},
        {"llm": False, "prompt": "x"},
        {"llm": {"enabled": False, "model": "gpt-4.1"}, "prompt": "x"},
    ],
)
def test_without_a_model_asked_for_the_agent_thinks_itself(scope: Json) -> None:
    assert call(scope).llm is None


def test_a_narrower_scope_switches_the_model_on_again() -> None:
    assert call({"llm": False}, {"llm": "mistral:mistral-medium"}).llm is not None


def test_the_prompt_beside_llm_beats_the_one_inside() -> None:
    assert call({"prompt": "outer", "llm": {"model": "gpt-4.1", "instructions": "inner"}}).prompt == "outer"


def test_another_provider_drops_the_model_of_the_wider_scope() -> None:
    config = call({"llm": {"provider": "openai", "model": "gpt-4.1", "temperature": 0.1}}, {"llm": "mistral"})

    assert config.llm is not None
    assert (config.llm.model, config.llm.temperature) == ("mistral-small-latest", 0.7)


# --- scopes ---


@pytest.mark.proves("row-20")
def test_two_numbers_of_one_agent_speak_two_languages() -> None:
    agent: Json = {"voice": "elevenlabs:anna", "stt": "deepgram-flux", "language": "en"}
    spanish = call(agent, {"voice": "elevenlabs:lucia", "language": "es"})
    french = call(agent, {"language": "fr", "stt": "deepgram:nova-3"})

    assert isinstance(spanish.voice, ElevenLabsVoice)
    assert isinstance(french.voice, ElevenLabsVoice)
    assert (spanish.language, spanish.voice.voice_id, spanish.voice.language) == ("es", "lucia", "es")
    assert spanish.stt == FluxStt(language="es")
    assert (french.language, french.voice.voice_id, french.voice.language) == ("fr", "anna", "fr")
    assert french.stt == NovaStt(language="fr")


def test_a_language_that_a_block_pinned_outlives_the_session_language() -> None:
    config = call({"stt": "deepgram:nova-3:es", "voice": "cartesia:x"}, {"language": "fr"})

    assert config.stt == NovaStt(language="es")
    assert config.voice == CartesiaVoice(voice_id="x", language="fr")


def test_another_provider_keeps_only_the_pinned_language() -> None:
    agent: Json = {"stt": {"provider": "deepgram", "language": "es", "endpointing_ms": 900}}
    assert call(agent, {"stt": "gladia"}).stt == GladiaStt(language="es")


def test_the_same_provider_merges_field_by_field() -> None:
    config = call(
        {"voice": {"provider": "elevenlabs", "voice_id": "a", "speed": 1.1}},
        {"voice": "elevenlabs:b"},
        {"voice": {"style": 0.2}},
    )

    assert isinstance(config.voice, ElevenLabsVoice)
    assert (config.voice.voice_id, config.voice.speed, config.voice.style) == ("b", 1.1, 0.2)


def test_a_voice_named_without_provider_belongs_to_the_default_provider() -> None:
    config = call({"voice": "cartesia:x"}, {"voice": "sarah"})
    assert config.voice == ElevenLabsVoice(voice_id="EXAVITQu4vr4xnSDxMaL", language="en")


def test_shortcuts_beat_config_in_the_same_frame_and_config_beats_wider_scopes() -> None:
    frame: Json = {
        "stt": {"provider": "deepgram-flux", "eot_threshold": 0.8},
        "config": {"tts": "cartesia:x", "stt": {"provider": "flux", "eot_threshold": 0.6, "eot_timeout_ms": 900}},
    }
    config = call({"voice": "elevenlabs:a"}, frame)

    assert config.stt == FluxStt(eot_threshold=0.8, eot_timeout_ms=900)
    assert config.voice == CartesiaVoice(voice_id="x")


@pytest.mark.proves("row-27")
def test_a_raw_colon_shortcut_reaches_a_running_call() -> None:
    assert call({"stt": "flux"}, {}, {}, {"stt": "deepgram:nova-3:fr"}).stt == NovaStt(language="fr")


def test_null_lets_the_wider_scope_through() -> None:
    config = call({"voice": "cartesia:x", "prompt": "p"}, {"voice": None, "prompt": None, "language": None})

    assert config.voice == CartesiaVoice(voice_id="x")
    assert config.prompt == "p"


# --- later frames of one scope ---


def test_a_patch_keeps_what_it_does_not_name() -> None:
    tools: JsonValue = [{"name": "find"}]
    config = patched({"prompt": "p", "tools": tools, "llm": "gpt-4.1", "vars": {"a": "1"}}, {"llm": "mistral-medium"})

    assert config.llm is not None
    assert (config.llm.provider, config.prompt, [tool.name for tool in config.tools]) == ("mistral", "p", ["find"])
    assert config.vars == {"a": "1"}


def test_a_null_in_a_patch_resets_to_the_inherited_value() -> None:
    agent: Json = {"voice": "cartesia:x", "session_limits": {"idle_timeout_seconds": 5}, "vars": {"a": "1", "b": "2"}}
    config = patched(agent, {"voice": None, "sessionLimits": {"idleTimeoutSeconds": None}, "vars": {"a": None}})

    assert isinstance(config.voice, ElevenLabsVoice)
    assert config.limits == SessionLimits()
    assert config.vars == {"b": "2"}


def test_a_patch_with_another_provider_replaces_but_keeps_the_language() -> None:
    config = patched({"stt": "deepgram:nova-2:de"}, {"stt": {"engine": "deepgram-flux"}})
    assert config.stt == FluxStt(language="de")


def test_a_patch_leaves_its_base_alone() -> None:
    base = Layer(normalise({"interruption": {"min_words": 3}}))

    patch(base, Layer(normalise({"interruption": {"min_words": 5}})))

    assert resolve([base], FULL).interruption.min_words == 3


# --- spelling ---


@pytest.mark.proves("row-96")
def test_camel_case_keys_are_accepted_at_top_and_inside_blocks() -> None:
    config = call(
        {
            "sessionLimits": {"idleTimeoutSeconds": 30, "maxDurationSeconds": 90},
            "turnDetection": {"silenceMs": 500},
            "media": {"maxDurationSeconds": 60, "recording": True},
            "promptVars": {"callerName": "Ann"},
            "stt": "gladia",
        }
    )

    assert (config.limits.idle_timeout_seconds, config.limits.max_duration_seconds) == (30, 90)
    assert config.vad.min_silence_ms == 500
    assert (config.media.max_duration_seconds, config.media.recording) == (60, True)
    assert config.vars == {"callerName": "Ann"}


def test_schemas_and_memory_keep_their_own_spelling() -> None:
    schema: JsonValue = {"type": "object", "properties": {"orderId": {"type": "string"}}}
    values = normalise({"tools": [{"name": "t", "parameters": schema}], "memory": {"contactKey": "phone"}})

    assert values["tools"] == [{"name": "t", "parameters": schema}]
    assert values["memory"] == {"contactKey": "phone"}


def test_values_still_in_bytes_are_read() -> None:
    raw = {"stt": msgspec.Raw(b'"deepgram:nova-3:fr"'), "config": msgspec.Raw(b'{"vad":{"threshold":0.3}}')}
    config = resolve([Layer(normalise(raw))], FULL)

    assert config.stt == NovaStt(language="fr")
    assert config.vad.threshold == 0.3


def test_unknown_keys_are_ignored() -> None:
    assert call({"flavour": 1, "mode": [], "config": {"realtime": {"voice": "marin"}}, "event": "x"}) == call({})


# --- turn taking ---


@pytest.mark.proves("row-84")
@pytest.mark.parametrize(
    ("scope", "mode", "max_silence_ms"),
    [
        ({"stt": "gladia", "turn_detection": "silence"}, TurnMode.SILENCE, 800),
        ({"stt": "gladia", "turn_detection": {"mode": "silence", "silence_ms": 600}}, TurnMode.SILENCE, 600),
        ({"stt": "gladia", "turnDetection": {"mode": "silence", "max_silence_seconds": 1.5}}, TurnMode.SILENCE, 1500),
        ({"stt": "gladia", "config": {"turn_detection": "native"}}, TurnMode.NATIVE, 3000),
        ({"stt": "gladia"}, TurnMode.SMART_TURN, 3000),
        ({"stt": "flux", "turn_detection": "smart_turn"}, TurnMode.NATIVE, 3000),
        ({"stt": "flux", "turn_detection": "silence"}, TurnMode.NATIVE, 3000),
        ({"stt": "local", "turn_detection": "native"}, TurnMode.SMART_TURN, 3000),
    ],
)
def test_turn_detection_is_honoured_where_the_recogniser_allows(
    scope: Json, mode: TurnMode, max_silence_ms: int
) -> None:
    turn = call(scope).turn
    assert (turn.mode, turn.max_silence_ms) == (mode, max_silence_ms)


def test_a_new_turn_mode_starts_from_its_own_defaults() -> None:
    wide: Json = {"stt": "gladia", "turn_detection": {"mode": "smart_turn", "max_silence_seconds": 4}}
    assert call(wide, {"turn_detection": "silence"}).turn.max_silence_ms == 800


@pytest.mark.parametrize(
    ("value", "enabled", "minimum", "energy"),
    [
        (None, True, 300, -40),
        (False, False, 300, -40),
        ({"min_words": 3}, True, 300, -40),
        ({"energy_threshold_db": -35}, True, 200, -35),
        ({"enabled": True, "energy_threshold_db": -40, "min_duration_ms": 250}, True, 250, -40),
        ({"barge_in_energy_threshold_db": -90}, True, 200, -60),
        ({"bargeInMinDurationMs": 180}, True, 180, -40),
    ],
)
def test_interruption_shapes(value: JsonValue, enabled: bool, minimum: int, energy: float) -> None:
    interruption = call({"interruption": value}).interruption
    assert (interruption.enabled, interruption.min_duration_ms, interruption.energy_threshold_db) == (
        enabled,
        minimum,
        energy,
    )


# --- limits and media ---


@pytest.mark.proves("row-95")
def test_limits_merge_field_by_field() -> None:
    config = call({"session_limits": {"idle_timeout_seconds": 30}}, {"session_limits": {"idle_warning_seconds": 10}})
    assert config.limits == SessionLimits(idle_timeout_seconds=30, idle_warning_seconds=10)


@pytest.mark.parametrize(
    ("timeout", "warning", "expected"), [(10, 15, 9), (15, 15, 14), (1, 5, 0), (0, 15, 15), (60, 0, 0), (16, 15, 15)]
)
def test_the_warning_comes_before_the_timeout(timeout: int, warning: int, expected: int) -> None:
    limits = call({"session_limits": {"idle_timeout_seconds": timeout, "idle_warning_seconds": warning}}).limits
    assert (limits.idle_timeout_seconds, limits.idle_warning_seconds) == (timeout, expected)


@pytest.mark.parametrize("value", [-1, "60", 1.5, True, [], -(10**400)])
def test_broken_limits_are_refused_by_their_key(value: JsonValue) -> None:
    with pytest.raises(ConfigError) as caught:
        call({"sessionLimits": {"idleTimeoutSeconds": value}})
    assert caught.value.key == "session_limits.idle_timeout_seconds"


def test_a_recording_too_long_for_one_frame_is_refused() -> None:
    assert call({"media": {"recording": True, "maxDurationSeconds": 2400}}).media.max_duration_seconds == 2400
    with pytest.raises(ConfigError, match=r"^media\.max_duration_seconds"):
        call({"media": {"recording": True, "maxDurationSeconds": 2401}})
    with pytest.raises(ConfigError, match=r"^media\.max_duration_seconds"):
        call({"media": {"max_duration_seconds": 2401}, "analysis": {"recording": True}})
    assert call({"media": {"live": True, "maxDurationSeconds": 7200}}).media.max_duration_seconds == 7200


# --- the rest ---


@pytest.mark.parametrize(
    ("greeting", "language", "expected"),
    [
        ("Hello", "es", "Hello"),
        ({"text": "Hello"}, "es", "Hello"),
        ({"en": "Hello", "es": "Hola"}, "es-MX", "Hola"),
        ({"en": "Hello", "es-MX": "Bueno", "es": "Hola"}, "es_mx", "Bueno"),
        ({"en": "Hello", "es": "Hola"}, "fr", "Hello"),
        ({"de": "Hallo", "es": "Hola"}, "fr", "Hallo"),
        ("", "es", None),
        ({}, "es", None),
        (None, "es", None),
    ],
)
def test_the_greeting_follows_the_session_language(greeting: JsonValue, language: str, expected: str | None) -> None:
    assert call({"greeting": greeting, "language": language}).greeting == expected


def test_variables_become_texts_and_merge_by_name() -> None:
    config = call(
        {"vars": {"name": "Ann", "n": 3, "price": 2.5, "whole": 4.0, "vip": True, "none": None}},
        {"vars": {"name": "Bob", "list": [1, "a"]}},
    )
    assert config.vars == {"name": "Bob", "n": "3", "price": "2.5", "whole": "4", "vip": "true", "list": '[1,"a"]'}


@pytest.mark.parametrize("value", ["Mars/Base", "America", "../etc/passwd", "\0", "\ud800", 5])
def test_an_unknown_time_zone_is_refused(value: JsonValue) -> None:
    with pytest.raises(ConfigError) as caught:
        call({"timezone": value})
    assert caught.value.key == "timezone"
    assert call({"timezone": "Europe/Madrid"}).timezone == "Europe/Madrid"


# --- keys and stand-ins ---


def test_without_any_key_every_vendor_is_served_by_the_built_in_engines() -> None:
    agent: Json = {"stt": {"provider": "flux", "keyterms": ["Acme"]}, "voice": "elevenlabs:x", "language": "es"}
    config = call(agent, defaults=BARE)

    assert config.stt == LocalStt(language="es", keyterms=("Acme",))
    assert config.voice == LocalVoice(language="es")
    assert config.turn.mode is TurnMode.SMART_TURN
    assert not config.vad.native
    assert [line.partition(":")[0] for line in config.warnings] == ["stt", "voice"]


def test_the_built_in_engines_need_no_key_and_no_warning() -> None:
    config = call({"stt": {"provider": "local", "grammar": "#JSGF V1.0;"}, "voice": "local:en-gb"})

    assert config.stt == LocalStt(grammar="#JSGF V1.0;")
    assert config.voice == LocalVoice(voice_id="en-gb")
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("scope", "provider"),
    [
        ({}, "deepgram-flux"),
        ({"stt": "local", "voice": "cartesia:x"}, "cartesia"),
        ({"stt": "soniox", "voice": "local"}, "soniox"),
        ({"stt": "local", "voice": "rime:x"}, "rime"),
    ],
)
def test_without_fallback_a_missing_key_is_named(scope: Json, provider: str) -> None:
    with pytest.raises(ProviderKeyMissing) as caught:
        call(scope, defaults=ServerDefaults())
    assert (caught.value.provider, caught.value.code) == (provider, "PROVIDER_KEY_REQUIRED")


@pytest.mark.parametrize(
    ("llm", "provider"), [("gpt-4.1", "openai"), ("acme:model", "acme"), ({"provider": "acme"}, "acme")]
)
def test_a_model_without_a_key_has_no_stand_in(llm: JsonValue, provider: str) -> None:
    with pytest.raises(ProviderKeyMissing) as caught:
        call({"llm": llm}, defaults=BARE)
    assert caught.value.provider == provider


def test_a_language_that_flux_lacks_goes_to_nova_with_a_warning() -> None:
    config = call({"stt": {"provider": "flux", "keyterms": ["Acme"]}, "language": "ar"})

    assert config.stt == NovaStt(language="ar", keyterms=("Acme",))
    assert config.turn.mode is TurnMode.SMART_TURN
    assert len(config.warnings) == 1


# --- refusals ---


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        ({"stt": "whisper"}, "stt"),
        ({"voice": {"provider": "acme"}}, "voice"),
        ({"llm": 5}, "llm"),
        ({"llm": "openai:gpt-realtime"}, "llm"),
        ({"prompt": 5}, "prompt"),
        ({"language": "?"}, "language"),
        ({"tools": {}}, "tools"),
        ({"config": []}, "config"),
        ({"vad": {"provider": "magic"}}, "vad.provider"),
        ({"turn_detection": "telepathy"}, "turn_detection.mode"),
        ({"interruption": "no"}, "interruption"),
        ({"flash": "yes"}, "flash"),
        ({"greeting": [1]}, "greeting"),
        ({"vars": []}, "vars"),
        ({"analysis": {"recording": 1}}, "analysis.recording"),
    ],
)
def test_a_mistake_is_named_by_key_with_the_code_of_its_scope(payload: Json, key: str) -> None:
    for scope, code in (
        (Scope.AGENT, "REGISTRATION_ERROR"),
        (Scope.CHANNEL, "REGISTRATION_ERROR"),
        (Scope.CALL, "CONFIG_ERROR"),
        (Scope.SESSION, "CONFIG_ERROR"),
    ):
        with pytest.raises(ConfigError) as caught:
            read_layer(payload, scope)
        assert (caught.value.key, caught.value.code) == (key, code)


def test_an_unknown_model_provider_keeps_its_own_code_at_registration() -> None:
    with pytest.raises(ProviderKeyMissing) as caught:
        validate(Layer(normalise({"llm": "acme:model"})), Scope.AGENT)
    assert caught.value.code == "PROVIDER_KEY_REQUIRED"


_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["flux", "gladia:x", "local", "gpt-4.1"])
)
_inner = st.sampled_from(
    [
        "provider",
        "engine",
        "model",
        "language",
        "voiceId",
        "llm",
        "enabled",
        "mode",
        "keyterms",
        "speed",
        "prompt",
        "tools",
        "idleTimeoutSeconds",
        "max_duration_seconds",
        "silence_ms",
        "name",
        "function",
        "parameters",
        "es",
        "text",
    ]
)
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_inner | st.text(max_size=5), inner, max_size=4),
)
_top = st.sampled_from(
    [
        "voice",
        "tts",
        "stt",
        "llm",
        "prompt",
        "tools",
        "interruption",
        "sessionLimits",
        "config",
        "media",
        "turnDetection",
        "vad",
        "analysis",
        "flash",
        "vars",
        "timezone",
        "greeting",
        "language",
    ]
)
_payloads = st.dictionaries(_top | st.text(max_size=5), _json, max_size=5)


@settings(max_examples=400, deadline=None)
@given(st.lists(_payloads, max_size=3), st.booleans())
def test_no_payload_raises_anything_but_a_config_error(payloads: list[object], bare: bool) -> None:
    defaults = BARE if bare else FULL
    with contextlib.suppress(ConfigError):
        layers = [Layer(normalise(cast("Json", payload))) for payload in payloads]
        resolve(layers, defaults)
        if len(layers) > 1:
            resolve([patch(layers[0], layers[1])], defaults)
