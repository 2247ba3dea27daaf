"""Reads one `stt`, `voice` or `llm` value, text or object, into a block: canonical `provider`, snake_case fields.

A block holds only what was said: defaults come later (`wire.engines`), because blocks of several scopes are merged
first and an absent field must not hide what a wider scope set. Shapes: protocol §5.3-5.5, behaviour §6.9.
"""

from __future__ import annotations

import re

from wire.config import JsonValue
from wire.errors import ConfigError
from wire.fields import Block, Fields, snake_keys

FLUX = "deepgram-flux"
DEFAULT_PROVIDER = ""
"""Provider of a voice named without one (`"sarah"`): whatever the server's default voice uses."""

STT_PROVIDERS = frozenset(
    {FLUX, "deepgram", "gladia", "transcribe", "local", "soniox", "elevenlabs", "cartesia", "assemblyai", "xai"}
)
VOICE_PROVIDERS = frozenset({"elevenlabs", "cartesia", "polly", "local", "rime", "soniox", "xai"})
LLM_PROVIDERS = frozenset(
    {"openai", "mistral", "anthropic", "google", "xai", "groq", "cerebras", "deepseek", "openrouter"}
)
_LLM_ALIASES = {"gemini": "google", "claude": "anthropic", "grok": "xai"}
_LLM_BY_MODEL = (
    (re.compile(r"gpt|o\d"), "openai"),
    (re.compile(r"claude"), "anthropic"),
    (re.compile(r"gemini"), "google"),
    (re.compile(r"mistral|ministral"), "mistral"),
    (re.compile(r"grok"), "xai"),
)
_POLLY_ENGINES = frozenset({"neural", "standard"})
_LANGUAGE_LIKE = re.compile(r"[a-z]{2}([-_][A-Za-z]{2,4})?|multi")


def split(text: str) -> tuple[str, str | None]:
    """Cut at the first `:` or `/`: the provider and the rest; no rest when there is no separator."""
    cut = re.split(r"[:/]", text.strip(), maxsplit=1)
    return cut[0].strip(), (cut[1].strip() or None) if len(cut) == 2 else None


def read_stt(value: JsonValue) -> Block:
    """A `stt` value as a block. Unknown providers and shapes raise `ConfigError`."""
    if isinstance(value, str):
        return _stt_block(_stt_parts(value), {})
    if not isinstance(value, dict):
        raise ConfigError("stt", "must be a text or an object")
    fields = snake_keys(value, {"key_terms": "keyterms"})
    read = Fields("stt", fields)
    # A client that expands "deepgram/nova-3:es" cuts at the colon only and leaves provider "deepgram/nova-3",
    # model "es": the parts are put back in a row and read again.
    provider, model, language = read.text("provider") or read.text("engine"), read.text("model"), read.text("language")
    named: Block = {key: item for key, item in fields.items() if key not in ("provider", "engine", "model", "language")}
    if provider is None:
        return _stt_patch(model or "", language or "", named)
    parts = _stt_parts(provider)
    if len(parts) == 1 and model is None:
        model = ""
    parts += [part for part in (model, language) if part is not None]
    return _stt_block(parts, named)


def _stt_parts(text: str) -> list[str]:
    provider, rest = split(text)
    return [part for part in (provider, *(rest.split(":", 1) if rest else ())) if part]


def _stt_block(parts: list[str], named: Block) -> Block:
    provider, model, language = (*parts, "", "", "")[:3]
    provider = provider.lower()
    if provider.startswith("nova"):
        provider, model, language = "deepgram", provider, model or language
    if provider.startswith("flux"):
        provider, model, language = FLUX, provider, language or model
    if provider == "deepgram" and model.startswith("flux"):
        provider = FLUX
    if provider not in STT_PROVIDERS:
        raise ConfigError("stt", f"unknown provider {provider[:40]!r}")
    if not language and _LANGUAGE_LIKE.fullmatch(model):
        model, language = "", model
    said = {"provider": provider, "model": model, "language": language}
    return named | {key: text for key, text in said.items() if text}


def _stt_patch(model: str, language: str, named: Block) -> Block:
    """An object without a provider: it refines the inherited one, unless its model tells whose it is."""
    if model.startswith(("flux", "nova")):
        return _stt_block(["deepgram", model, language], named)
    return named | {key: text for key, text in (("model", model), ("language", language)) if text}


def read_voice(value: JsonValue) -> Block:
    """A `voice` value as a block. Unknown providers and shapes raise `ConfigError`."""
    if isinstance(value, str):
        return _voice_text(value)
    if not isinstance(value, dict):
        raise ConfigError("voice", "must be a text or an object")
    fields = snake_keys(value, {})
    read = Fields("voice", fields)
    provider, engine = read.text("provider"), read.text("engine")
    if provider is None and engine is not None and engine.lower() not in _POLLY_ENGINES:
        provider, engine = engine, None
    if provider is None and engine is not None:
        provider = "polly"
    voice_id = next((name for key in ("voice_id", "voice", "id", "alias") if (name := read.text(key))), None)
    names = ("provider", "engine", "voice_id", "voice", "id", "alias")
    block: Block = {key: item for key, item in fields.items() if key not in names}
    if engine is not None:
        block["engine"] = engine.lower()
    if provider is not None:
        block |= _voice_text(provider)
        if block["provider"] == DEFAULT_PROVIDER:
            raise ConfigError("voice", f"unknown provider {provider[:40]!r}")
    elif voice_id is not None and split(voice_id)[0].lower() in VOICE_PROVIDERS:
        return block | _voice_text(voice_id)
    if voice_id is not None:
        block["voice_id"] = voice_id
    return block


def _voice_text(text: str) -> Block:
    provider, voice_id = split(text)
    known = provider.lower() in VOICE_PROVIDERS
    if not provider or (voice_id is not None and not known):
        raise ConfigError("voice", f"unknown provider {provider[:40]!r}")
    if voice_id is not None:
        return {"provider": provider.lower(), "voice_id": voice_id}
    return {"provider": provider.lower()} if known else {"provider": DEFAULT_PROVIDER, "voice_id": provider}


def read_llm(value: JsonValue) -> Block:
    """An `llm` value as a block; `enabled` is set as soon as a model or a provider is named."""
    if isinstance(value, bool):
        return {"enabled": value}
    if isinstance(value, str):
        return {**_llm_text(value), "enabled": True}
    if not isinstance(value, dict):
        raise ConfigError("llm", "must be a text or an object")
    fields = snake_keys(value, {"instructions": "prompt"})
    read = Fields("llm", fields)
    model = read.text("model") or read.text("llm")
    provider, engine = _llm_name(read.text("provider")), _llm_name(read.text("engine"))
    # `deploy({model})` of SDK 0.1.4 puts the model where the provider belongs.
    if provider is not None and provider == (model or "").lower() and provider not in LLM_PROVIDERS:
        provider = None
    if provider is None and engine in LLM_PROVIDERS:
        provider = engine
    if provider is None and engine is not None and model is None:
        model = read.text("engine")
    named: Block = {key: item for key, item in fields.items() if key not in ("provider", "engine", "model", "llm")}
    block = named | _llm_pair(provider, model)
    if not read.given("enabled") and (provider is not None or model is not None):
        block["enabled"] = True
    return block


def _llm_name(name: str | None) -> str | None:
    return None if name is None else _LLM_ALIASES.get(name.lower(), name.lower())


def _llm_text(text: str) -> Block:
    provider, model = split(text)
    if model is None:
        name = _llm_name(provider)
        return _llm_pair(name, None) if name in LLM_PROVIDERS else _llm_pair(None, provider)
    return _llm_pair(_llm_name(provider), model)


def _llm_pair(provider: str | None, model: str | None) -> Block:
    if model is not None and "realtime" in model.lower():
        raise ConfigError("llm", "speech-to-speech models are not supported")
    if model is not None:
        prefix, rest = split(model)
        name = _llm_name(prefix)
        if rest is not None and name in LLM_PROVIDERS and provider in (None, name):
            provider, model = name, rest
        provider = provider or _llm_of_model(model)
    block: Block = {}
    if provider is not None:
        block["provider"] = provider
    if model is not None:
        block["model"] = model
    return block


def _llm_of_model(model: str) -> str | None:
    """Who makes that model, by its name; None when the name does not tell."""
    return next((provider for pattern, provider in _LLM_BY_MODEL if pattern.match(model.lower())), None)
