"""Whether the caller is listened to: mute and hold (protocol §4.6, §4.7).

Deaf ears still hear: what is said meanwhile is kept as text, given to the agent's program when it listens again, and
forgotten. It is never a turn, an interruption or a question to the model.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from pipelines.events import CallEvents
from pipelines.listening.ears import Ears
from pipelines.speaking.mouth import Mouth
from pipelines.speaking.music import Music
from wire.events import CallHeld, CallMuted, CallUnheld, CallUnmuted

HOLD_DRAIN_SECONDS = 5.0
"""Speech that is queued when a hold is asked for is heard before the music, for at most so long."""


class Hold(Enum):
    """How far a hold is. `COMING`: the caller hears the last words before the music."""

    OFF = auto()
    COMING = auto()
    ON = auto()


class Attention:
    """Mute and hold of one call."""

    def __init__(self, ears: Ears, mouth: Mouth, music: Music, events: CallEvents, on_deaf: Callable[[], None]) -> None:
        """`on_deaf` is told before the ears close."""
        self._ears = ears
        self._on_deaf = on_deaf
        self._mouth = mouth
        self._music = music
        self._events = events
        self._muted = False
        self._muted_self = False
        """The user wants it so; what the agent wants counts beside it."""
        self._hold = Hold.OFF
        self._hold_asked_at = 0.0

    @property
    def away(self) -> bool:
        """True while the caller's silence is not theirs: muted or held."""
        return self._muted or self._muted_self or self._hold is not Hold.OFF

    def mute(self) -> None:
        """Stop listening."""
        self._muted = True
        self._turn_deaf()
        self._events.publish(CallMuted())

    def unmute(self) -> None:
        """Listen again; a call that is held stays deaf."""
        text = self._ears.heard_closed() if self._muted else None
        self._muted = False
        self._listen()
        self._events.publish(CallUnmuted(muted_transcript=text))

    def mute_self(self) -> None:
        """The user muted their microphone."""
        self._muted_self = True
        self._turn_deaf()
        self._events.publish(CallMuted())

    def unmute_self(self) -> None:
        """The user's microphone is on again. To a call that the agent has muted that makes no difference."""
        if not self._muted_self:
            return
        self._muted_self = False
        if not self._muted:
            self._listen()
            self._events.publish(CallUnmuted(muted_transcript=None))

    def hold(self, now: float) -> None:
        """Music, and nobody listens. Speech that is queued comes first."""
        if self._hold is Hold.ON:
            self._events.publish(CallHeld())
        elif self._hold is Hold.OFF:
            self._hold, self._hold_asked_at = Hold.COMING, now
            self._turn_deaf()
            self.beat(now)

    def unhold(self) -> None:
        """The hold ends; no-op when there is none."""
        if self._hold is Hold.OFF:
            return
        self._music.stop()
        self._hold = Hold.OFF
        text = None if self._muted else self._ears.heard_closed()
        self._listen()
        self._events.publish(CallUnheld(muted_transcript=text))

    def reply_accepted(self) -> None:
        """Something is to be said: that ends a hold, also one whose music has not begun (protocol §4.7)."""
        if self._hold is Hold.COMING:
            self._events.publish(CallHeld())
        self.unhold()

    def keys_coming(self) -> None:
        """Tones are to be played: the music of a hold is silent until they are over."""
        self._music.stop()

    def beat(self, now: float) -> None:
        """Called every tick."""
        if self._hold is Hold.COMING and (not self._mouth.busy or now - self._hold_asked_at >= HOLD_DRAIN_SECONDS):
            self._mouth.clear()
            self._hold = Hold.ON
            self._events.publish(CallHeld())
        if self._hold is Hold.ON and not self._mouth.busy:
            self._music.start(now)
        self._music.beat(now)

    def close(self) -> None:
        """The call is over."""
        self._music.stop()

    def _turn_deaf(self) -> None:
        self._on_deaf()
        self._ears.close()

    def _listen(self) -> None:
        if not self.away:
            self._ears.open()
