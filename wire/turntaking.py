"""Turn detection, voice activity, interruption, limits, analysis and media: merged blocks -> structs.

Which strategy a recogniser brings: behaviour §6.2. Defaults: §6.3, protocol §5.6-5.8.
"""

from __future__ import annotations

from wire.config import (
    Analysis,
    FluxStt,
    GladiaStt,
    InterruptionConfig,
    JsonValue,
    LocalStt,
    Media,
    NovaStt,
    SessionLimits,
    SttConfig,
    TurnConfig,
    TurnMode,
    VadConfig,
)
from wire.errors import ConfigError
from wire.fields import Block, Fields

_LONGEST_MS = 60_000
_DAY = 86_400
_RECORDING_SECONDS = 2400
"""A recording travels in one frame, as base64 of 16-bit samples. At 16 kHz 2457 s fill the 100 MiB that the Node `ws`
client takes; beyond that the agent's socket would be closed by its own client (behaviour §6.7)."""


def read_turn(value: JsonValue) -> Block:
    """`turn_detection`: a mode alone, or an object."""
    if isinstance(value, str):
        return {"mode": value.strip().lower()}
    if not isinstance(value, dict):
        raise ConfigError("turn_detection", "must be a text or an object")
    return value


def read_interruption(value: JsonValue) -> Block:
    """`interruption`: on, off, or an object."""
    if isinstance(value, bool):
        return {"enabled": value}
    if not isinstance(value, dict):
        raise ConfigError("interruption", "must be true, false or an object")
    return value


def turn_config(block: Block, stt: SttConfig) -> TurnConfig:
    """Who ends a turn: what was asked for where the recogniser allows it, else what suits the recogniser."""
    read = Fields("turn_detection", block)
    mode = _mode(read.text("mode"), stt)
    silence = 0.8 if mode is TurnMode.SILENCE else 3.0
    if mode is TurnMode.SILENCE and read.given("silence_ms"):
        silence = read.number("silence_ms", 800, 0, _LONGEST_MS) / 1000
    return TurnConfig(
        mode=mode,
        smart_turn_threshold=read.number("smart_turn_threshold", 0.5, 0, 1),
        native_silence_ms=read.whole("native_silence_ms", 500, 0, _LONGEST_MS),
        max_silence_ms=round(read.number("max_silence_seconds", silence, 0.1, 60) * 1000),
        recheck_ms=read.whole("smart_turn_recheck_ms", 0, 0, _LONGEST_MS),
    )


def _mode(asked: str | None, stt: SttConfig) -> TurnMode:
    if asked is not None and asked.lower() not in tuple(TurnMode):
        raise ConfigError("turn_detection.mode", "must be 'smart_turn', 'native' or 'silence'")
    if isinstance(stt, FluxStt):
        return TurnMode.NATIVE
    mode = TurnMode(asked.lower()) if asked is not None else TurnMode.SMART_TURN
    # The built-in recogniser finds no ends of its own, so there is nothing native to trust.
    return TurnMode.SMART_TURN if mode is TurnMode.NATIVE and isinstance(stt, LocalStt) else mode


def vad_config(block: Block, turn: Block, stt: SttConfig) -> VadConfig:
    """Voice activity. `turn_detection.silence_ms` is the older name of `min_silence_ms`."""
    read = Fields("vad", block)
    provider = read.text("provider")
    if provider not in (None, "silero", "native"):
        raise ConfigError("vad.provider", "must be 'silero' or 'native'")
    native = isinstance(stt, FluxStt)
    if isinstance(stt, NovaStt | GladiaStt):
        native = provider == "native" or (provider is None and isinstance(stt, NovaStt) and stt.use_native_vad)
    silence = Fields("turn_detection", turn).whole("silence_ms", 350, 0, _LONGEST_MS)
    return VadConfig(
        native=native,
        threshold=read.number("threshold", 0.5, 0, 1),
        min_speech_ms=read.whole("min_speech_ms", 250, 0, _LONGEST_MS),
        min_silence_ms=read.whole("min_silence_ms", silence, 0, _LONGEST_MS),
        speech_end_delay_ms=read.whole("speech_end_delay_ms", 300, 0, _LONGEST_MS),
        resume_min_ms=read.whole("resume_min_ms", 200, 0, _LONGEST_MS),
        resume_min_volume=read.number("resume_min_volume", 0.35, 0, 1),
    )


def interruption_config(block: Block) -> InterruptionConfig:
    """When the user may stop the bot. Agents that write the older energy gate expect its older, shorter minimum."""
    read = Fields("interruption", block)
    older = read.given("energy_threshold_db", "barge_in_energy_threshold_db", "barge_in_min_duration_ms")
    energy = "energy_threshold_db" if read.given("energy_threshold_db") else "barge_in_energy_threshold_db"
    duration = "min_duration_ms" if read.given("min_duration_ms") else "barge_in_min_duration_ms"
    return InterruptionConfig(
        enabled=read.flag("enabled", default=True),
        min_duration_ms=read.whole(duration, 200 if older else 300, 0, _LONGEST_MS),
        energy_threshold_db=read.number(energy, -40, -60, 0),
        confidence=read.number("confidence", 0.7, 0, 1),
        min_volume=read.optional_number("min_volume", 0, 1),
        min_words=read.whole("min_words", 2, 1, 50),
        backchannel_filter=read.flag("backchannel_filter", default=True),
        resume_false=read.flag("resume_false", default=True),
    )


def session_limits(block: Block) -> SessionLimits:
    """The limits in whole seconds; 0 switches one off; a warning too late is a second before the timeout."""
    read = Fields("session_limits", block)
    timeout = read.count("idle_timeout_seconds", 60, _DAY)
    warning = read.count("idle_warning_seconds", 15, _DAY)
    if timeout > 0:
        warning = min(warning, timeout - 1)
    return SessionLimits(
        max_duration_seconds=read.count("max_duration_seconds", 600, _DAY),
        idle_timeout_seconds=timeout,
        idle_warning_seconds=warning,
        idle_grace_seconds=read.count("idle_grace_seconds", 10, _DAY),
    )


def analysis_config(block: Block) -> Analysis:
    """Extra events about the audio."""
    read = Fields("analysis", block)
    return Analysis(
        send_audio_metrics=read.flag("send_audio_metrics", default=False),
        audio_metrics_interval_ms=read.whole("audio_metrics_interval_ms", 100, 20, _LONGEST_MS),
        send_turn_audio=read.flag("send_turn_audio", default=False),
        send_bot_audio=read.flag("send_bot_audio", default=False),
        recording=read.flag("recording", default=False),
    )


def media_config(block: Block, analysis: Analysis) -> Media:
    """Live listening and recording; a cap whose recording no client could receive is refused."""
    read = Fields("media", block)
    seconds = read.count("max_duration_seconds", 1800, _DAY)
    recording = read.flag("recording", default=False)
    if seconds > _RECORDING_SECONDS and (recording or analysis.recording):
        raise ConfigError(
            "media.max_duration_seconds", f"must be at most {_RECORDING_SECONDS} while calls are recorded"
        )
    return Media(
        live=read.flag("live", default=False),
        recording=recording,
        max_duration_seconds=seconds,
    )
