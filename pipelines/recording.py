"""A call's recording: its mix, whole, in memory, up to a limit (behaviour §6.7)."""

from __future__ import annotations

from wire.events import CallRecording
from wire.recording import WavSound


class Recording:
    """Samples in call time from the first one on. While nothing is put in, there is silence."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._pcm = bytearray()
        self._began: int | None = None

    def put(self, at: int, pcm: bytes, max_seconds: int) -> None:
        """16-bit audio of position `at` (samples). What lies beyond `max_seconds` of recording is left out."""
        if self._began is None:
            self._began = at
        offset = 2 * (at - self._began)
        room = 2 * self._rate * max_seconds - offset
        if room <= 0:
            return
        if offset > len(self._pcm):
            self._pcm += bytes(offset - len(self._pcm))
        self._pcm += pcm[:room]

    def told(self) -> CallRecording | None:
        """All of it, as the agent is told; None when there is nothing."""
        if not self._pcm:
            return None
        return CallRecording(
            audio=WavSound(self._pcm, self._rate),
            duration_ms=len(self._pcm) * 500 // self._rate,
            sample_rate=self._rate,
        )
