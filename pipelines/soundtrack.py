"""The sound of a whole call: everything that goes out to the caller and everything that comes in passes here.

It stands between the call and its medium; nobody in the call knows another one. Mixing begins when somebody may listen
(`media.live`) or the call is recorded and ends when neither is so; before and after that, audio only passes.
"""

from __future__ import annotations

from typing import Protocol

from pipelines.clock import Clock
from pipelines.medium import Medium
from pipelines.mixing import Mixer
from pipelines.recording import Recording
from wire.config import CallConfig
from wire.events import CallRecording


class Audience(Protocol):
    """Those who listen to a call while it lasts. Neither method may block or raise."""

    def take(self, mixed: bytes) -> None:
        """The next 50 ms: 16-bit mono at the line's rate."""
        ...

    def over(self) -> None:
        """No more comes: the call is over, or may not be listened to any longer. Comes once."""
        ...


class Soundtrack:
    """One call's medium, overheard."""

    def __init__(self, medium: Medium, clock: Clock) -> None:
        self.audio = medium.audio
        self.live = False
        """Whether the call may be listened to."""
        self._medium = medium
        self._clock = clock
        self._began = clock.now()
        self._mixer: Mixer | None = None
        self._recorded = False
        self._max_seconds = 0
        self._recording: Recording | None = None
        self._audience: Audience | None = None

    # --- Medium ---

    def send_audio(self, audio: bytes) -> None:
        """To the caller."""
        self._medium.send_audio(audio)
        if self._mixer is not None:
            self._mixer.sent(audio, self._clock.now())

    def send_mark(self, name: str) -> None:
        """To the caller."""
        self._medium.send_mark(name)
        if self._mixer is not None:
            self._mixer.marked(name)

    def send_clear(self) -> None:
        """To the caller."""
        self._medium.send_clear()
        if self._mixer is not None:
            self._mixer.cleared(self._clock.now())

    async def hang_up(self) -> None:
        """End the line."""
        await self._medium.hang_up()

    # --- from the caller ---

    def heard(self, audio: bytes) -> None:
        """The caller's audio, listened to by the call or not."""
        if self._mixer is not None:
            self._mixer.heard(audio, self._clock.now())

    def echoed(self, name: str) -> None:
        """The line echoed a mark."""
        if self._mixer is not None:
            self._mixer.echoed(name, self._clock.now())

    # --- the call's life ---

    def begin(self) -> None:
        """The call begins: its time counts from here."""
        self._began = self._clock.now()

    def configure(self, config: CallConfig) -> None:
        """Listen and record as that says from now on. What was recorded before stays, with silence for the time in
        which recording was off."""
        self.live = config.media.live
        self._recorded = config.media.recording or config.analysis.recording
        self._max_seconds = config.media.max_duration_seconds
        now = self._clock.now()
        wanted = self.live or self._recorded
        if wanted and self._mixer is None:
            self._mixer = Mixer(self.audio, self._began, now)
        elif not wanted:
            self._mixer = None
        if not self.live:
            self._dismiss()

    def beat(self, now: float) -> None:
        """Called every tick."""
        if self._mixer is not None:
            self._play(self._mixer.position, self._mixer.due(now))

    def end(self) -> CallRecording | None:
        """The call is over. Its recording, if it is to be told."""
        mixer, self._mixer = self._mixer, None
        if mixer is not None:
            self._play(mixer.position, mixer.rest(self._clock.now()))
        self.live = False
        self._dismiss()
        recording, self._recording = self._recording, None
        return recording.told() if recording is not None and self._recorded else None

    def attend(self, audience: Audience | None) -> None:
        """Play to these from now on, or to nobody. Only while `live`."""
        self._audience = audience

    def is_heard_by(self, audience: Audience) -> bool:
        """Whether these are the ones that it plays to."""
        return self._audience is audience

    def _play(self, at: int, slices: list[bytes]) -> None:
        for mixed in slices:
            if self._recorded:
                if self._recording is None:
                    self._recording = Recording(self.audio.rate)
                self._recording.put(at, mixed, self._max_seconds)
            if self._audience is not None:
                self._audience.take(mixed)
            at += len(mixed) // 2

    def _dismiss(self) -> None:
        audience, self._audience = self._audience, None
        if audience is not None:
            audience.over()
