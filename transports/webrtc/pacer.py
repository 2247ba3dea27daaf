"""When which audio leaves for a browser: one frame every 20 ms for the whole session, silence between utterances. Pure.

Frames are due on an absolute schedule from `start`, so a late tick neither shifts the later ones nor loses audio. The
far end hears what has left; a mark is therefore echoed once the frames before it have had their 20 ms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

FRAME_SECONDS: Final = 0.02
FRAME_SAMPLES: Final = 320
"""At 16 kHz."""
FRAME_BYTES: Final = 2 * FRAME_SAMPLES
LEAD_IN_FRAMES: Final = 10
"""A page begins to play when the first audio is there, and must not swallow the first word of the greeting."""
CATCH_UP_FRAMES: Final = 5
"""What a stalled process sends at once when it comes to itself; whatever was due before is left out of the schedule."""
MAX_WAITING_SECONDS: Final = 10
"""The call paces what it sends by far less; more than this is not taken."""
_SLACK: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Frame:
    """`pcm` is FRAME_BYTES long, or None for silence; `number` counts the frames that were due before this one."""

    number: int
    pcm: bytes | None


class Pacer:
    """The outgoing audio of one session."""

    def __init__(self) -> None:
        self._audio = bytearray()
        self._marks: deque[tuple[int, str]] = deque()
        self._taken = 0
        self._left = 0
        self._started: float | None = None
        self._next = 0
        self._silence_until = 0

    def start(self, now: float) -> None:
        """The far end listens: the first frame is due now, and the first audio after the lead-in."""
        self._started = now
        self._silence_until = LEAD_IN_FRAMES

    def push(self, audio: bytes) -> None:
        """16 kHz PCM16, to be heard after all that was pushed before."""
        if len(self._audio) + len(audio) <= MAX_WAITING_SECONDS * FRAME_BYTES * 50:
            self._audio += audio
            self._taken += len(audio)

    def mark(self, name: str) -> None:
        """Have `name` echoed when all audio pushed so far has been heard."""
        self._marks.append((self._taken, name))

    def clear(self) -> None:
        """Nothing pushed so far leaves any more; marks that wait are echoed with the next frame."""
        self._left = self._taken
        self._audio.clear()

    def echoes(self, now: float) -> list[str]:
        """Marks that have been reached by now, in order. Ask before taking the frames that are due."""
        reached: list[str] = []
        if self._started is not None and now + _SLACK >= self._due_at(self._next):
            while self._marks and self._marks[0][0] <= self._left:
                reached.append(self._marks.popleft()[1])
        return reached

    def due(self, now: float) -> Iterator[Frame]:
        """The frames to send now."""
        if self._started is None:
            return
        late = int((now - self._started + _SLACK) / FRAME_SECONDS) - self._next
        if late >= CATCH_UP_FRAMES:
            self._next += late - CATCH_UP_FRAMES + 1
        while now + _SLACK >= self._due_at(self._next):
            number, self._next = self._next, self._next + 1
            yield Frame(number, self._take() if number >= self._silence_until else None)

    def _due_at(self, number: int) -> float:
        assert self._started is not None
        return self._started + number * FRAME_SECONDS

    def _take(self) -> bytes | None:
        if not self._audio:
            return None
        frame = bytes(self._audio[:FRAME_BYTES])
        del self._audio[:FRAME_BYTES]
        self._left += len(frame)
        return frame.ljust(FRAME_BYTES, b"\0")
