"""Where one utterance of a call is on its way to the caller's ear."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto


class UtteranceState(Enum):
    """Where an utterance is. CLEARED and HEARD are final."""

    WAITING = auto()
    """Nothing of it was sent yet."""
    PLAYING = auto()
    """Some of it was sent."""
    SENT = auto()
    """All of it and its final mark were sent."""
    HEARD = auto()
    """The far end has played all of it."""
    CLEARED = auto()
    """It was cut short, or dropped before it began."""


_MOVES = {
    UtteranceState.WAITING: {UtteranceState.PLAYING, UtteranceState.SENT, UtteranceState.CLEARED},
    UtteranceState.PLAYING: {UtteranceState.SENT, UtteranceState.CLEARED},
    UtteranceState.SENT: {UtteranceState.HEARD, UtteranceState.CLEARED},
}


@dataclass(slots=True)
class UtteranceAudio:
    """The audio of one utterance, and how far it got; `start`, `sent` and `heard` are bytes of the call's stream."""

    name: str
    state: UtteranceState = UtteranceState.WAITING
    unsent: bytearray = field(default_factory=bytearray)
    finished: bool = False
    start: int = 0
    sent: int = 0
    heard: int = 0
    """Only meaningful in the final states."""
    unconfirmed: bool = False

    @property
    def live(self) -> bool:
        """True until the utterance was heard or cleared."""
        return self.state in _MOVES

    def move(self, state: UtteranceState) -> None:
        """Change the state. Raises RuntimeError for a move that cannot be."""
        if state not in _MOVES.get(self.state, ()):
            raise RuntimeError(f"utterance cannot go from {self.state.name} to {state.name}")
        self.state = state
