"""Hold music: a loop that plays until somebody speaks again. It is no speech of the bot and causes no events."""

from __future__ import annotations

from pipelines.medium import Medium
from pipelines.speaking.playout import Audio, Playout

_NAME = "hold"


class Music:
    """Plays one loop over and over into the line, paced like speech."""

    def __init__(self, medium: Medium, loop: bytes) -> None:
        """`loop` is in the medium's format."""
        self._medium = medium
        self._loop = loop
        self._playout: Playout | None = None

    def start(self, now: float) -> None:
        """Begin. Idempotent."""
        if self._playout is None:
            self._playout = Playout(self._medium.audio, marks=False)
            self._playout.begin(_NAME)
            self.beat(now)

    def stop(self) -> None:
        """End at once: what the carrier still holds is taken back. Idempotent."""
        if self._playout is not None:
            self._playout = None
            self._medium.send_clear()

    def beat(self, now: float) -> None:
        """Called every tick."""
        playout = self._playout
        if playout is None:
            return
        if playout.unsent_ms < 1000:
            playout.append(_NAME, self._loop)
        for item in playout.pull(now):
            if isinstance(item, Audio):
                self._medium.send_audio(item.audio)
