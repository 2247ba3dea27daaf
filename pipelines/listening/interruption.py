"""When may the user's voice stop the bot? Two gates, either opens (behaviour §6.6). Pure, over audio time.

Voice: `min_duration_ms` of continuous voice that is sure and loud enough. With the backchannel filter on and no word
yet that is more than an acknowledgement, the voice must last `BACKCHANNEL_GRACE_MS` longer: an "mm-hm" is over by then.
With such a word ("no", "stop") the voice may have pauses of `PAUSE_MS`.
Words: at least `min_words` words that are no acknowledgement.
The first `GREETING_GUARD_MS` of the first thing the bot says cannot be interrupted: callers breathe into the phone.
"""

from __future__ import annotations

from pipelines.listening.backchannel import real_words
from wire.config import InterruptionConfig

BACKCHANNEL_GRACE_MS = 200
GREETING_GUARD_MS = 600
DIP_MS = 100
"""Silence this long is part of the voice around it …"""
CLOSURE_MS = 200
"""… and this long, where the detector is sure of a voice all through: lips close for a "p"."""
PAUSE_MS = 500


class InterruptionGate:
    """Judges one stretch of overlapping speech at a time; `reset` begins a new one."""

    def __init__(self, config: InterruptionConfig, language: str) -> None:
        self._config = config
        self._language = language
        self._run_ms = 0
        self._dip_ms = 0
        self._spoken_ms = 0
        self._pause_ms = 0
        self._words = 0
        self._words_before = 0

    def reset(self, text: str = "") -> None:
        """A new stretch begins; `text` are words already said, which count for nothing in it."""
        self._run_ms = self._dip_ms = self._spoken_ms = self._pause_ms = self._words = 0
        self._words_before = real_words(text, self._language)

    def voice(self, length_ms: int, probability: float, energy_db: float) -> None:
        """`length_ms` of the caller's line while the bot is audible."""
        loud = energy_db >= self._config.energy_threshold_db
        if self._config.min_volume is not None:
            loud = loud and volume(energy_db) >= self._config.min_volume
        sure = probability >= self._config.confidence
        if loud and sure:
            self._run_ms += self._dip_ms + length_ms
            self._spoken_ms += length_ms
            self._dip_ms = self._pause_ms = 0
            return
        self._dip_ms += length_ms
        self._pause_ms += length_ms
        if self._dip_ms > (CLOSURE_MS if sure else DIP_MS) or self._run_ms == 0:
            self._run_ms = self._dip_ms = 0
        if self._pause_ms > PAUSE_MS:
            self._spoken_ms = 0

    def text(self, text: str, bot_heard_ms: int, *, greeting: bool) -> None:
        """All words so far, those of before included. Words said while the bot is guarded will not stop it later, when
        the caller may long be listening again; a voice that goes on will."""
        count = real_words(text, self._language)
        if greeting and bot_heard_ms < GREETING_GUARD_MS:
            self._words_before = count
        self._words = max(0, count - self._words_before)

    def open(self, bot_heard_ms: int, *, greeting: bool) -> bool:
        """May the bot be stopped now? `bot_heard_ms` of its message have played."""
        if not self._config.enabled or (greeting and bot_heard_ms < GREETING_GUARD_MS):
            return False
        if self._words >= self._config.min_words:
            return True
        needed = self._config.min_duration_ms
        if self._words:
            return self._spoken_ms >= needed or self._run_ms >= needed
        if self._config.backchannel_filter:
            needed += BACKCHANNEL_GRACE_MS
        return self._run_ms >= needed


def volume(energy_db: float) -> float:
    """Loudness 0..1 of an energy in dBFS (-60..0), linear in dB: 0.35 is about -39 dB."""
    return max(0.0, min(1.0, 1 + energy_db / 60))
