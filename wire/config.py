"""What one call is configured with, after every shape an SDK may send has been read and merged.

`wire.shortcuts` reads single values ("elevenlabs:abc", "deepgram/flux"), `wire.resolve` merges the layers
(server defaults, agent, channel, call, session) into a `CallConfig`. Everything past this floor reads only these.
Times are in the unit that the field's name says; thresholds are 0..1 unless said otherwise.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

JsonValue = msgspec.Raw | str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]
"""Any JSON value. Only doors (wire, HTTP) hold one; inside, values have types."""


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    """Immutable settings block."""


# --- speech to text ---


class FluxStt(_Config, frozen=True, kw_only=True):
    """Deepgram Flux: recognition with native turns (protocol §5.4; ranges clamped, eager <= eot)."""

    language: str = "en"
    language_hint: str | None = None
    eot_threshold: float = 0.7
    eager_eot_threshold: float | None = 0.5
    eot_timeout_ms: int = 1000
    keyterms: tuple[str, ...] = ()
    min_confidence: float | None = None


class NovaStt(_Config, frozen=True, kw_only=True):
    """Deepgram Nova: recognition without turns."""

    model: str = "nova-3"
    language: str = "en"
    interim_results: bool = True
    smart_format: bool = True
    punctuate: bool = True
    profanity_filter: bool = False
    use_native_vad: bool = False
    endpointing_ms: int = 300
    utterance_end_ms: int = 1000
    keywords: tuple[str, ...] = ()
    keyterms: tuple[str, ...] = ()
    min_confidence: float | None = None


class GladiaStt(_Config, frozen=True, kw_only=True):
    """Gladia live v2. Times in ms as the SDK sends them; the wire to the vendor wants seconds."""

    model: str = "solaria-1"
    language: str = "en"
    endpointing_ms: int = 300
    max_duration_without_endpointing_ms: int = 5000
    speech_threshold: float = 0.8
    code_switching: bool = False
    audio_enhancer: bool = True


class TranscribeStt(_Config, frozen=True, kw_only=True):
    """AWS Transcribe streaming; `language` is already a full locale (`en-US`)."""

    language: str = "en-US"


class LocalStt(_Config, frozen=True, kw_only=True):
    """Built-in recogniser (pocketsphinx). `grammar` is JSGF text; `keyterms` are phrases; at most one counts."""

    language: str = "en"
    grammar: str | None = None
    keyterms: tuple[str, ...] = ()


SttConfig = FluxStt | NovaStt | GladiaStt | TranscribeStt | LocalStt


# --- voice ---


class ElevenLabsVoice(_Config, frozen=True, kw_only=True):
    """ElevenLabs; numbers already clamped to the vendor's ranges."""

    voice_id: str
    model: str = "eleven_flash_v2_5"
    speed: float = 1.0
    stability: float = 0.5
    similarity_boost: float = 0.75
    style: float = 0.0
    use_speaker_boost: bool = True
    language: str | None = None


class CartesiaVoice(_Config, frozen=True, kw_only=True):
    """Cartesia Sonic."""

    voice_id: str
    model: str = "sonic-3.5"
    speed: float = 1.0
    volume: float = 1.0
    emotion: str | None = None
    language: str = "en"


class PollyVoice(_Config, frozen=True, kw_only=True):
    """AWS Polly; `engine` is Polly's own (`neural` | `standard`), never the provider."""

    voice_id: str = "Joanna"
    engine: str = "neural"
    language: str = "en-US"
    rate: str | None = None
    volume: str | None = None
    pitch: str | None = None


class LocalVoice(_Config, frozen=True, kw_only=True):
    """Built-in speech (espeak-ng). `voice_id` is an espeak voice name, or None for the call's language."""

    voice_id: str | None = None
    language: str = "en"
    speed: float = 1.0


VoiceConfig = ElevenLabsVoice | CartesiaVoice | PollyVoice | LocalVoice


# --- language model ---


class LlmConfig(_Config, frozen=True, kw_only=True):
    """The server-side language model. `provider` is a registry name (`openai`, `mistral`, …)."""

    provider: str
    model: str
    temperature: float | None = 0.7
    max_tokens: int | None = 1024


class Tool(_Config, frozen=True, kw_only=True):
    """One function the model may ask for; `parameters` is a JSON schema, kept as the bytes that came."""

    name: str
    description: str = ""
    parameters: msgspec.Raw = msgspec.Raw(b'{"type":"object","properties":{}}')
    ephemeral: bool = False
    no_followup: bool = False


# --- turn taking ---


class TurnMode(StrEnum):
    """Who decides that the user's turn is over (behaviour §6.2)."""

    NATIVE = "native"
    SMART_TURN = "smart_turn"
    SILENCE = "silence"


class TurnConfig(_Config, frozen=True, kw_only=True):
    """End-of-turn detection. `max_silence_ms` forces the end."""

    mode: TurnMode
    smart_turn_threshold: float = 0.5
    native_silence_ms: int = 500
    max_silence_ms: int = 3000
    recheck_ms: int = 0


class VadConfig(_Config, frozen=True, kw_only=True):
    """Voice activity (Silero unless the recogniser brings its own)."""

    native: bool = False
    threshold: float = 0.5
    min_speech_ms: int = 250
    min_silence_ms: int = 350
    speech_end_delay_ms: int = 300
    resume_min_ms: int = 200
    resume_min_volume: float = 0.35


class InterruptionConfig(_Config, frozen=True, kw_only=True):
    """When the user may stop the bot (behaviour §6.6). `energy_threshold_db` is dBFS, -60..0."""

    enabled: bool = True
    min_duration_ms: int = 300
    energy_threshold_db: float = -40.0
    confidence: float = 0.7
    min_volume: float | None = None
    min_words: int = 2
    backchannel_filter: bool = True
    resume_false: bool = True


# --- the rest ---


class SessionLimits(_Config, frozen=True, kw_only=True):
    """Seconds; 0 switches the item off (behaviour §6.8)."""

    max_duration_seconds: int = 600
    idle_timeout_seconds: int = 60
    idle_warning_seconds: int = 15
    idle_grace_seconds: int = 10


class Analysis(_Config, frozen=True, kw_only=True):
    """Optional extra events about the audio."""

    send_audio_metrics: bool = False
    audio_metrics_interval_ms: int = 100
    send_turn_audio: bool = False
    send_bot_audio: bool = False
    recording: bool = False


class Media(_Config, frozen=True, kw_only=True):
    """Live listening and recording."""

    live: bool = False
    recording: bool = False
    max_duration_seconds: int = 1800


class CallConfig(_Config, frozen=True, kw_only=True):
    """Everything one call needs to know, resolved. `llm` None means the agent's own program thinks."""

    language: str
    voice: VoiceConfig
    stt: SttConfig
    turn: TurnConfig
    llm: LlmConfig | None = None
    prompt: str = ""
    tools: tuple[Tool, ...] = ()
    vad: VadConfig = VadConfig()
    interruption: InterruptionConfig = InterruptionConfig()
    limits: SessionLimits = SessionLimits()
    analysis: Analysis = Analysis()
    media: Media = Media()
    vars: dict[str, str] = {}
    timezone: str = "UTC"
    greeting: str | None = None
    warnings: tuple[str, ...] = ()
    """What was asked for and could not be had as asked (retired model, local fallback): logged once a call."""
