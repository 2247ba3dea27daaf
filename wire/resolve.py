"""Merges the scopes of a configuration, weakest first, into the one `CallConfig` a call runs on (protocol §5.1).

    server defaults -> agent -> channel -> call -> session

A `Layer` is what one scope said. `read_layer` makes one from a raw frame, `patch` applies a later frame of the same
scope to it, `resolve` folds the layers. Everything here is pure; the only exception raised is `ConfigError`.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from wire.config import CallConfig, JsonValue, LlmConfig, LocalVoice, SttConfig, VoiceConfig
from wire.engines import build_llm, build_stt, build_voice, flux_fits, local_stt, nova_for
from wire.errors import ConfigError, ProviderKeyMissing
from wire.fields import Block, Fields, base_language, json_bytes, language_tag
from wire.layers import Layer, normalise, over, over_block, patch
from wire.shortcuts import (
    DEFAULT_PROVIDER,
    LLM_PROVIDERS,
    STT_PROVIDERS,
    VOICE_PROVIDERS,
    read_llm,
    read_stt,
    read_voice,
)
from wire.tools import read_tools
from wire.turntaking import (
    analysis_config,
    interruption_config,
    media_config,
    session_limits,
    turn_config,
    vad_config,
)

__all__ = ["Layer", "Scope", "ServerDefaults", "normalise", "patch", "read_layer", "resolve", "validate"]


class Scope(StrEnum):
    """Where a configuration was written."""

    AGENT = "agent"
    CHANNEL = "channel"
    CALL = "call"
    SESSION = "session"

    @property
    def code(self) -> str:
        """The wire code that a mistake in this scope gets."""
        return "REGISTRATION_ERROR" if self in (Scope.AGENT, Scope.CHANNEL) else "CONFIG_ERROR"


@dataclass(frozen=True, slots=True)
class ServerDefaults:
    """What the server supplies.

    `stt`, `voice`, `llm` are shortcuts. `keys` names the providers this server can serve, as the wire spells them
    (`deepgram-flux`, `deepgram`, `elevenlabs`, `openai`…); `local` is always there. `local_fallback` puts the built-in
    engines where a provider is missing.
    """

    stt: str = "deepgram-flux"
    voice: str = "elevenlabs"
    llm: str = "openai:gpt-4.1-mini"
    language: str = "en"
    timezone: str = "UTC"
    keys: frozenset[str] = frozenset()
    local_fallback: bool = False


def read_layer(payload: Mapping[str, JsonValue], scope: Scope) -> Layer:
    """A raw frame as a checked layer. `ConfigError` names the key and carries the scope's wire code."""
    try:
        layer = Layer(normalise(payload))
    except ConfigError as error:
        error.code = scope.code
        raise
    validate(layer, scope)
    return layer


def validate(layer: Layer, scope: Scope) -> None:
    """Refuse what could never work, whatever the other scopes say: unknown providers, impossible values."""
    try:
        resolve([layer], _EVERY_KEY)
    except ProviderKeyMissing:
        raise
    except ConfigError as error:
        error.code = scope.code
        raise


def resolve(layers: Sequence[Layer], defaults: ServerDefaults) -> CallConfig:
    """One call's configuration out of its scopes, weakest first.

    Raises `ConfigError` for a value that cannot be used, `ProviderKeyMissing` for a provider that this server cannot
    reach and nothing stands in for. Stand-ins and corrections are told in `CallConfig.warnings`.
    """
    said: Block = {}
    for layer in layers:
        said = over(said, _named_voice(layer.values, defaults))
    language = language_tag(said.get("language"), "language") or defaults.language
    notes: list[str] = []
    stt = _stt(_merged("stt", said, defaults.stt), language, defaults, notes)
    voice = _voice(said, language, defaults, notes)
    prompt = _text("prompt", said) or ""
    turn = _inside("turn_detection", said)
    analysis = analysis_config(_inside("analysis", said))
    return CallConfig(
        language=language,
        stt=stt,
        voice=voice,
        turn=turn_config(turn, stt),
        llm=_llm(said, prompt, defaults),
        prompt=prompt,
        tools=read_tools(said.get("tools")),
        vad=vad_config(_inside("vad", said), turn, stt),
        interruption=interruption_config(_inside("interruption", said)),
        limits=session_limits(_inside("session_limits", said)),
        analysis=analysis,
        media=media_config(_inside("media", said), analysis),
        vars=_vars(said.get("vars")),
        timezone=_timezone(said, defaults),
        greeting=_greeting(said.get("greeting"), language),
        warnings=tuple(notes),
    )


# --- single blocks ---


def _inside(key: str, said: Block) -> Block:
    value = said.get(key)
    return value if isinstance(value, dict) else {}


def _merged(key: str, said: Block, default: str) -> Block:
    below = read_stt(default) if key == "stt" else read_voice(default) if key == "voice" else read_llm(default)
    return over_block(below, _inside(key, said), "provider")


def _named_voice(values: Block, defaults: ServerDefaults) -> Block:
    """A voice that was named without its provider belongs to the server's default provider."""
    voice = values.get("voice")
    if not isinstance(voice, dict) or voice.get("provider") != DEFAULT_PROVIDER:
        return values
    return {**values, "voice": {**voice, "provider": read_voice(defaults.voice)["provider"]}}


def _stt(block: Block, language: str, defaults: ServerDefaults, notes: list[str]) -> SttConfig:
    stt, provider = build_stt(block, language), str(block["provider"])
    if not flux_fits(stt) and provider in defaults.keys:
        if "deepgram" in defaults.keys:
            notes.append("stt: Flux does not speak this language; Nova is used instead")
            return nova_for(block, language)
        notes.append("stt: Flux does not speak this language; recognition will be poor")
    if stt is not None and (provider == "local" or provider in defaults.keys):
        return stt
    if not defaults.local_fallback:
        raise ProviderKeyMissing("stt", provider)
    notes.append(f"stt: no key for {provider!r} on this server; the built-in recogniser is used instead")
    return local_stt(stt, language)


def _voice(said: Block, language: str, defaults: ServerDefaults, notes: list[str]) -> VoiceConfig:
    block = _merged("voice", said, defaults.voice)
    flash = said.get("flash")
    if flash is not None and not isinstance(flash, bool):
        raise ConfigError("flash", "must be true or false")
    voice, provider = build_voice(block, language, flash=bool(flash)), str(block["provider"])
    if voice is not None and (provider == "local" or provider in defaults.keys):
        return voice
    if not defaults.local_fallback:
        raise ProviderKeyMissing("voice", provider)
    notes.append(f"voice: no key for {provider!r} on this server; the built-in voice is used instead")
    return LocalVoice(language=Fields("voice", block).language() or language)


def _llm(said: Block, prompt: str, defaults: ServerDefaults) -> LlmConfig | None:
    """The server's model when one was asked for, or when there is a prompt and nothing says otherwise."""
    asked = Fields("llm", _inside("llm", said)).flag("enabled", default=bool(prompt))
    if not asked:
        return None
    block = _merged("llm", said, defaults.llm)
    if block["provider"] not in defaults.keys:
        raise ProviderKeyMissing("llm", str(block["provider"]))
    return build_llm(block)


def _text(key: str, said: Block) -> str | None:
    value = said.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigError(key, "must be a text")
    return value


def _vars(value: JsonValue) -> dict[str, str]:
    """Prompt variables as texts: a text as it is, a whole number without its `.0`, anything else as JSON."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError("vars", "must be an object")
    texts: dict[str, str] = {}
    for name, item in value.items():
        if isinstance(item, float) and item.is_integer():
            item = int(item)
        if item is not None:
            texts[name] = item if isinstance(item, str) else json_bytes(item, "vars").decode()
    return texts


def _greeting(value: JsonValue, language: str) -> str | None:
    """A text, `{text}`, or one text a language: the call's own, its base form, English, or the first there is."""
    if value is None or isinstance(value, str):
        return value or None
    if not isinstance(value, dict) or not all(isinstance(text, str | None) for text in value.values()):
        raise ConfigError("greeting", "must be a text, {text}, or one text for each language")
    texts = {key.lower().replace("_", "-"): text for key, text in value.items() if isinstance(text, str) and text}
    wanted = (language.lower(), base_language(language), "text", "default", "en")
    return next((texts[key] for key in wanted if key in texts), next(iter(texts.values()), None))


def _timezone(said: Block, defaults: ServerDefaults) -> str:
    name = _text("timezone", said) or defaults.timezone
    try:
        # One small file, cached: the list of all zones would walk a directory tree on the event loop.
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        if name != "UTC":
            raise ConfigError("timezone", "is not an IANA time zone known here") from error
    return name


_EVERY_KEY = ServerDefaults(keys=STT_PROVIDERS | VOICE_PROVIDERS | LLM_PROVIDERS, local_fallback=True)
"""A server that could serve anyone: what fails even there is wrong in itself."""
