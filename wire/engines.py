"""Turns a merged `stt`, `voice` or `llm` block into its struct: defaults, vendor ranges, vendor languages.

Each builder returns None for a provider that the protocol knows and that has no struct (nothing here can serve it).
Fields, defaults and ranges: protocol §5.3-5.5, behaviour §6.3 and §6.10-6.12.
"""

from __future__ import annotations

from wire.config import (
    CartesiaVoice,
    ElevenLabsVoice,
    FluxStt,
    GladiaStt,
    LlmConfig,
    LocalStt,
    LocalVoice,
    NovaStt,
    PollyVoice,
    SttConfig,
    TranscribeStt,
    VoiceConfig,
)
from wire.errors import ConfigError
from wire.fields import Block, Fields, base_language
from wire.shortcuts import FLUX

FLUX_LANGUAGES = frozenset({"multi", "en", "es", "fr", "de", "hi", "ru", "pt", "ja", "it", "nl"})
"""What Flux understands (Deepgram, models and languages: flux-general-en, flux-general-multi)."""

_LOCALES = {
    **{"en": "en-US", "es": "es-US", "pt": "pt-BR", "zh": "zh-CN", "ja": "ja-JP", "ko": "ko-KR", "hi": "hi-IN"},
    **{"ar": "ar-SA", "sv": "sv-SE", "da": "da-DK", "he": "he-IL", "vi": "vi-VN", "uk": "uk-UA", "multi": "en-US"},
}

_GLADIA_MODELS = {"accurate": "solaria-1", "solaria": "solaria-1", "fast": "solaria-1"}

ELEVENLABS_ALIASES = {
    "sarah": "EXAVITQu4vr4xnSDxMaL",
    "rachel": "21m00Tcm4TlvDq8ikWAM",
    "george": "JBFqnCBsd6RMkjVDRZzb",
    "brian": "nPczCjzI2devNBz1zQrb",
    "laura": "FGY2WhTYpPnrIDTdsKH5",
    "charlie": "IKne3meq5aSn9XLyUdCD",
    "alice": "Xb7hH8MSUJpSbSDYk0k2",
    "matilda": "XrExE9yKIg1WjnnlVkGX",
    "jessica": "cgSgspJ2msm6clMCkdW9",
    "daniel": "onwK4e9ZLuTAKqWW03F9",
    "lily": "pFZP5JQG7iQjIVuC4Bku",
    "liam": "TX3LPaxmHKxFdv7VOQHJ",
}
"""Premade voices that every ElevenLabs account has. Other names stay as they are: short names of an account's own
voices are looked up when a call begins."""

CARTESIA_ALIASES = {"katie": "f786b574-daa5-4673-aa0c-cbe3e8534c02"}
_CARTESIA_MODELS = {"sonic": "sonic-3.5"}

_POLLY_VOICES = {
    "en-GB": "Amy",
    "es-ES": "Lucia",
    "es-US": "Lupe",
    "es-MX": "Mia",
    "fr-FR": "Lea",
    "de-DE": "Vicki",
    "it-IT": "Bianca",
    "pt-BR": "Camila",
}

_LLM_MODELS = {"openai": "gpt-4.1-mini", "mistral": "mistral-small-latest"}


def locale(tag: str) -> str:
    """The full locale AWS wants: `es` -> `es-US`, `fr` -> `fr-FR`; a full one stays."""
    return tag if "-" in tag else _LOCALES.get(tag.lower(), f"{tag.lower()}-{tag.upper()}")


# --- speech to text ---


def build_stt(block: Block, language: str) -> SttConfig | None:
    """The recogniser's settings; `language` is the session's, used unless the block pins its own."""
    read = Fields("stt", block)
    tag = read.language() or language
    match block.get("provider"):
        case "deepgram-flux":
            return _flux(read, tag)
        case "deepgram":
            return _nova(read, tag)
        case "gladia":
            return _gladia(read, tag)
        case "transcribe":
            return TranscribeStt(language=locale(tag))
        case "local":
            return LocalStt(language=tag, grammar=read.text("grammar"), keyterms=read.texts("keyterms"))
        case _:
            return None


def _flux(read: Fields, tag: str) -> FluxStt:
    model = read.text("model") or ""
    if model.endswith("-en"):
        tag = tag if base_language(tag) == "en" else "en"
    elif model.endswith("multi") and base_language(tag) == "en":
        tag = "multi"
    eot = read.number("eot_threshold", 0.7, 0.5, 0.9)
    return FluxStt(
        language=tag,
        language_hint=read.language("language_hint"),
        eot_threshold=eot,
        # Deepgram refuses an eager threshold above the other one; samples in the wild have it so.
        eager_eot_threshold=min(eot, read.number("eager_eot_threshold", 0.5, 0.3, 0.9)),
        eot_timeout_ms=read.whole("eot_timeout_ms", 1000, 500, 10_000),
        keyterms=read.texts("keyterms"),
        min_confidence=read.optional_number("min_confidence", 0, 1),
    )


def _nova(read: Fields, tag: str) -> NovaStt:
    model = read.text("model") or "nova-3"
    keywords, keyterms = read.texts("keywords"), read.texts("keyterms")
    if model.startswith("nova-3"):
        # Nova-3 knows keyterms only, and those carry no weight ("pinecall:2" -> "pinecall").
        bare = tuple(word.rpartition(":")[0] if _weighted(word) else word for word in keywords)
        keywords, keyterms = (), tuple(dict.fromkeys((*keyterms, *bare)))
    return NovaStt(
        model=model,
        language=tag,
        interim_results=read.flag("interim_results", default=True),
        smart_format=read.flag("smart_format", default=True),
        punctuate=read.flag("punctuate", default=True),
        profanity_filter=read.flag("profanity_filter", default=False),
        use_native_vad=read.flag("use_native_vad", default=False),
        endpointing_ms=read.whole("endpointing_ms", 300, 10, 10_000),
        utterance_end_ms=read.whole("utterance_end_ms", 1000, 1000, 5000),
        keywords=keywords,
        keyterms=keyterms,
        min_confidence=read.optional_number("min_confidence", 0, 1),
    )


def _weighted(word: str) -> bool:
    head, _, weight = word.rpartition(":")
    return bool(head) and weight.lstrip("-").replace(".", "", 1).isdecimal()


def _gladia(read: Fields, tag: str) -> GladiaStt:
    model = read.text("model") or "solaria-1"
    endpointing = "endpointing" if read.given("endpointing") else "endpointing_ms"
    longest = "max_duration_without_endpointing"
    longest = longest if read.given(longest) else f"{longest}_ms"
    return GladiaStt(
        model=_GLADIA_MODELS.get(model, model),
        language=base_language(tag),
        endpointing_ms=read.whole(endpointing, 300, 10, 10_000),
        max_duration_without_endpointing_ms=read.whole(longest, 5000, 5000, 60_000),
        speech_threshold=read.number("speech_threshold", 0.8, 0, 1),
        code_switching=read.flag("code_switching", default=False),
        audio_enhancer=read.flag("audio_enhancer", default=True),
    )


def local_stt(stt: SttConfig | None, language: str) -> LocalStt:
    """What the built-in recogniser can keep of another one's settings: the language and the phrases."""
    tag = language if stt is None or stt.language == "multi" else stt.language
    keyterms = stt.keyterms if isinstance(stt, FluxStt | NovaStt) else ()
    return LocalStt(language=tag, keyterms=keyterms)


# --- voice ---


def build_voice(block: Block, language: str, *, flash: bool) -> VoiceConfig | None:
    """The voice's settings; `language` is the session's. `flash` keeps ElevenLabs' fast model for any language."""
    read = Fields("voice", block)
    tag = read.language() or language
    match block.get("provider"):
        case "elevenlabs":
            return _elevenlabs(read, tag, flash=flash)
        case "cartesia":
            return _cartesia(read, tag)
        case "polly":
            return _polly(read, tag)
        case "local":
            return LocalVoice(voice_id=read.text("voice_id"), language=tag, speed=read.number("speed", 1, 0.5, 2))
        case _:
            return None


def _elevenlabs(read: Fields, tag: str, *, flash: bool) -> ElevenLabsVoice:
    voice_id = read.text("voice_id") or "sarah"
    quick = flash or base_language(tag) in ("en", "multi")
    return ElevenLabsVoice(
        voice_id=ELEVENLABS_ALIASES.get(voice_id.lower(), voice_id),
        model=read.text("model") or ("eleven_flash_v2_5" if quick else "eleven_multilingual_v2"),
        speed=read.number("speed", 1, 0.7, 1.2),
        stability=read.number("stability", 0.5, 0, 1),
        similarity_boost=read.number("similarity_boost", 0.75, 0, 1),
        style=read.number("style", 0, 0, 1),
        use_speaker_boost=read.flag("use_speaker_boost", default=True),
        language=None if tag == "multi" else base_language(tag),
    )


def _cartesia(read: Fields, tag: str) -> CartesiaVoice:
    voice_id, model = read.text("voice_id") or "katie", read.text("model") or "sonic"
    return CartesiaVoice(
        voice_id=CARTESIA_ALIASES.get(voice_id.lower(), voice_id),
        model=_CARTESIA_MODELS.get(model, model),
        speed=read.number("speed", 1, 0.6, 1.5),
        volume=read.number("volume", 1, 0.5, 2),
        emotion=read.text("emotion"),
        language="en" if tag == "multi" else base_language(tag),
    )


def _polly(read: Fields, tag: str) -> PollyVoice:
    spoken = locale(tag)
    engine = read.text("engine") or "neural"
    if engine not in ("neural", "standard"):
        raise ConfigError("voice.engine", "must be 'neural' or 'standard'")
    return PollyVoice(
        voice_id=read.text("voice_id") or _POLLY_VOICES.get(spoken, "Joanna"),
        engine=engine,
        language=spoken,
        rate=read.text("rate"),
        volume=read.text("volume"),
        pitch=read.text("pitch"),
    )


# --- language model ---


def build_llm(block: Block) -> LlmConfig:
    """The model's settings. A provider without a model gets its usual small one, where there is one."""
    read = Fields("llm", block)
    provider = read.text("provider") or ""
    model = read.text("model") or _LLM_MODELS.get(provider)
    if model is None:
        raise ConfigError("llm.model", "is missing")
    return LlmConfig(
        provider=provider,
        model=model,
        temperature=read.number("temperature", 0.7, 0, 2),
        max_tokens=read.whole("max_tokens", 1024, 1, 1_000_000),
    )


def flux_fits(stt: SttConfig | None) -> bool:
    """False for a Flux that is asked for a language it does not have."""
    return not isinstance(stt, FluxStt) or base_language(stt.language) in FLUX_LANGUAGES


def nova_for(block: Block, language: str) -> NovaStt:
    """Nova in the place of a Flux that lacks the language: what both know is kept."""
    keep: Block = {key: block[key] for key in ("language", "keyterms", "min_confidence") if key in block}
    assert block.get("provider") == FLUX
    return _nova(Fields("stt", keep), Fields("stt", keep).language() or language)
