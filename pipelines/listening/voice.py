"""From voice-activity frames to "speaks" and "is silent", over audio time. Pure.

Onset needs `min_speech_ms` of voice; a dip of up to 100 ms (a plosive, a lost frame) does not restart the count.
Silence is counted from the last voiced frame, so everything that waits for silence waits for the same instant.
"""

from __future__ import annotations

from providers.base import VadFrame
from wire.config import VadConfig

DIP_MS = 100
"""A gap this short is part of the speech around it."""
HYSTERESIS = 0.15
"""Once speaking, voice is anything above `threshold - HYSTERESIS`: word endings fade."""


class Voice:
    """Tracks whether the user speaks. All times are audio milliseconds since the stream began."""

    def __init__(self, config: VadConfig) -> None:
        self._config = config
        self._run_start: int | None = None
        self._frame_end = 0
        self.speaking = False
        self.started_ms = 0
        """When the current or last speech began."""
        self.last_voice_ms = 0
        """End of the last voiced frame."""
        self.confidence = 0.0

    def begin(self, now_ms: int) -> None:
        """The first frame follows here: the stream is older than whoever tracks it now."""
        self._frame_end = now_ms

    @property
    def now_ms(self) -> int:
        """Audio time of the newest frame."""
        return self._frame_end

    @property
    def silence_ms(self) -> int:
        """Since the last voice."""
        return self._frame_end - self.last_voice_ms

    @property
    def voiced_run_ms(self) -> int:
        """How long voice has now lasted, dips included; 0 when there is none."""
        return 0 if self._run_start is None else self.last_voice_ms - self._run_start

    def hear(self, frame: VadFrame) -> bool:
        """Take a frame; True at the moment when speech is certain (onset)."""
        length = frame.end_ms - self._frame_end
        self._frame_end = frame.end_ms
        threshold = self._config.threshold - (HYSTERESIS if self.speaking else 0.0)
        if frame.probability >= threshold:
            if self._run_start is None:
                self._run_start = frame.end_ms - length
            self.last_voice_ms = frame.end_ms
            self.confidence = frame.probability
            if not self.speaking and self.voiced_run_ms >= self._config.min_speech_ms:
                self.speaking = True
                self.started_ms = self._run_start
                return True
        elif self._run_start is not None and self.silence_ms > DIP_MS:
            self._run_start = None
        return False

    def offset(self) -> bool:
        """True once, when the user has been silent for `speech_end_delay_ms`."""
        if self.speaking and self.silence_ms >= self._config.speech_end_delay_ms:
            self.speaking = False
            return True
        return False
