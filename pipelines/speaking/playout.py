"""What to send to the caller when, and what the caller has heard. Pure: every method is told the time (seconds).

Audio leaves on an absolute schedule, never more than `lead_ms` ahead of where the far end must be playing, so that an
interruption throws little away. What was heard is the far end's word, not ours: it echoes marks when all audio before
them has been played, and between two echoes we count elapsed time, never past the next mark that is still open.

All positions are bytes of one stream that runs through the whole call; an utterance is a stretch of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pipelines.metronome import TICK
from pipelines.speaking.utterance_state import UtteranceAudio, UtteranceState
from providers.base import AudioFormat, Encoding

__all__ = ["Audio", "Cleared", "Mark", "Playout", "UtteranceState"]

ECHO_PATIENCE = 2.0
"""Seconds after its expected moment at which a mark that was never echoed counts as played."""
FIRST_CHUNK_MS = 20
"""After a silence the first chunk is small: the far end begins at once, and the mark behind it says when it did."""
_SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class Audio:
    """Hand these bytes to the medium."""

    audio: bytes
    utterance: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Ask the medium to echo this name once all audio before it has been played."""

    name: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """What a `clear` cut off: the utterance that was sounding (None: silence) with the ms that were heard of it, and
    the others, of which nothing was heard, in their order."""

    playing: str | None
    heard_ms: int
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _OpenMark:
    name: str
    position: int
    certain: int
    """How far the far end may be believed to have played before this is echoed."""
    deadline: float
    """When it counts as played even without an echo."""
    utterance: UtteranceAudio
    final: bool


class Playout:
    """The outgoing audio of one call.

    `marks=False` is for media that cannot echo: time alone then says what was heard. `now` must never go back.
    """

    def __init__(
        self,
        audio: AudioFormat,
        *,
        lead_ms: int = 180,
        chunk_ms: int = 60,
        mark_every_ms: int = 500,
        marks: bool = True,
    ) -> None:
        if not FIRST_CHUNK_MS <= chunk_ms <= lead_ms:
            raise ValueError(f"need {FIRST_CHUNK_MS} <= chunk_ms <= lead_ms")
        self._rate = audio.bytes_per_second
        self._sample = 1 if audio.encoding is Encoding.MULAW else 2
        self._lead = lead_ms / 1000
        self._chunk = self._size(chunk_ms)
        self._first_chunk = self._size(FIRST_CHUNK_MS)
        self._mark_every = self._size(mark_every_ms)
        self._marks = marks
        self._utterances: dict[str, UtteranceAudio] = {}
        self._to_send: deque[UtteranceAudio] = deque()
        self._open: deque[_OpenMark] = deque()
        self._done: list[str] = []
        self._serial = 0
        self._sent = 0
        self._last_mark = 0
        self._ends_at = float("-inf")
        self._aim = self._lead
        self._waited = False
        self._anchor = (0, 0.0)
        self._certain: int | None = None

    def begin(self, utterance: str) -> None:
        """Queue an utterance behind all others. Raises ValueError when the name was used before."""
        if utterance in self._utterances:
            raise ValueError(f"utterance {utterance} began before")
        self._utterances[utterance] = entry = UtteranceAudio(utterance)
        self._to_send.append(entry)

    def append(self, utterance: str, audio: bytes) -> None:
        """More audio of an utterance, any length (half a sample waits for its other half). Ignored once it was
        cleared, because speech engines still deliver for a moment; ValueError after `finish`."""
        entry = self._utterances[utterance]
        if entry.state is UtteranceState.CLEARED:
            return
        if entry.finished:
            raise ValueError(f"utterance {utterance} is finished")
        entry.unsent += audio

    def finish(self, utterance: str) -> None:
        """No more audio comes. Idempotent."""
        self._utterances[utterance].finished = True

    def drop(self, utterance: str) -> bool:
        """Forget an utterance of which nothing was sent. False: too late, only `clear` can stop it."""
        entry = self._utterances[utterance]
        if entry.state is not UtteranceState.WAITING:
            return False
        entry.move(UtteranceState.CLEARED)
        entry.unsent.clear()
        self._to_send.remove(entry)
        return True

    def clear(self, now: float) -> Cleared:
        """Drop everything that was not heard. The medium must be told to clear too; echoes of marks that were still
        open then mean nothing."""
        self._settle(now)
        head = self._head(now)
        cut = [entry for entry in self._utterances.values() if entry.live]
        playing = next((entry for entry in cut if entry.state is not UtteranceState.WAITING), None)
        for entry in cut:
            entry.heard = self._heard(entry, head)
            entry.move(UtteranceState.CLEARED)
            entry.unsent.clear()
        self._to_send.clear()
        self._open.clear()
        self._ends_at = now
        self._anchor = (self._sent, now)
        self._last_mark = self._sent
        self._certain = None
        return Cleared(
            playing.name if playing else None,
            self._ms(playing.heard) if playing else 0,
            tuple(entry.name for entry in cut if entry is not playing),
        )

    def pull(self, now: float) -> list[Audio | Mark]:
        """What to hand to the medium now, in this order."""
        out: list[Audio | Mark] = []
        while self._to_send:
            entry = self._to_send[0]
            size = self._next_size(entry, now)
            if size:
                if self._ahead(size, now) > self._aim + _SLACK:
                    self._waited = True
                    break
                self._send(entry, size, now, out)
            elif entry.finished:
                self._to_send.popleft()
                self._close(entry, now, out)
            else:
                break
        return out

    def next_due(self, now: float) -> float | None:
        """When `pull` or `done` next have something to say if nothing is put in until then; None: never."""
        dues: list[float] = []
        if self._to_send:
            entry = self._to_send[0]
            size = self._next_size(entry, now)
            if size:
                dues.append(max(now, self._ends_at + size / self._rate - self._aim))
            elif entry.finished:
                dues.append(now)
        if self._open:
            dues.append(max(now, self._open[0].deadline))
        if self._done:
            dues.append(now)
        return min(dues, default=None)

    @property
    def unsent_ms(self) -> int:
        """How much audio waits here: whoever fills the queue may slow down when this is large."""
        return self._ms(sum(len(entry.unsent) for entry in self._to_send))

    def echoed(self, name: str, now: float) -> None:
        """The medium echoed a mark. Unknown names (of before a `clear`, or already given up) count for nothing."""
        self._settle(now)
        if not any(mark.name == name for mark in self._open):
            return
        # Media play in order, so an echo vouches for the marks before it too.
        while self._open:
            mark = self._open.popleft()
            self._played(mark, now)
            if mark.name == name:
                return

    def heard_ms(self, utterance: str, now: float) -> int:
        """How much of it the far end has certainly played. Never falls."""
        self._settle(now)
        entry = self._utterances[utterance]
        return self._ms(self._heard(entry, self._head(now)) if entry.live else entry.heard)

    def state(self, utterance: str) -> UtteranceState:
        """Where the utterance is. KeyError for one that never began."""
        return self._utterances[utterance].state

    def unconfirmed(self, utterance: str) -> bool:
        """True when a mark of it counts as played only because its echo was overdue."""
        return self._utterances[utterance].unconfirmed

    def done(self, now: float) -> list[str]:
        """Utterances that became HEARD since this was last asked, in order."""
        self._settle(now)
        done, self._done = self._done, []
        return done

    def _size(self, ms: int) -> int:
        return self._rate * ms // 1000 // self._sample * self._sample

    def _ms(self, size: int) -> int:
        return size * 1000 // self._rate

    def _dry(self, now: float) -> bool:
        return self._ends_at <= now

    def _next_size(self, entry: UtteranceAudio, now: float) -> int:
        whole = len(entry.unsent) // self._sample * self._sample
        return min(self._first_chunk if self._dry(now) else self._chunk, whole)

    def _ahead(self, size: int, now: float) -> float:
        return max(self._ends_at, now) + size / self._rate - now

    def _keep_step(self, ahead: float) -> None:
        """Aim between two ticks: a chunk due just at one would miss it as often as not, and go a whole tick late."""
        if self._waited and self._aim == self._lead and ahead > self._lead - TICK:
            self._aim = ahead + TICK / 2 if ahead + TICK / 2 <= self._lead else ahead - TICK / 2

    def _send(self, entry: UtteranceAudio, size: int, now: float, out: list[Audio | Mark]) -> None:
        restarts = self._dry(now)
        if restarts:
            # The far end has fallen silent, or will. When it begins again only the next echo can tell.
            self._anchor = (self._head(now), now)
            self._certain = self._sent
            self._ends_at = now
            self._aim, self._waited = self._lead, False
        if entry.state is UtteranceState.WAITING:
            entry.move(UtteranceState.PLAYING)
            entry.start = self._sent
        out.append(Audio(bytes(entry.unsent[:size]), entry.name))
        del entry.unsent[:size]
        entry.sent += size
        self._sent += size
        self._ends_at += size / self._rate
        self._keep_step(self._ends_at - now)
        # A mark right after the first chunk of a stretch tells when the far end really began to play it.
        due = restarts or self._sent - self._last_mark >= self._mark_every
        at_end = entry.finished and len(entry.unsent) < self._sample
        if self._marks and due and not at_end:
            self._mark(entry, now, out, final=False)

    def _close(self, entry: UtteranceAudio, now: float, out: list[Audio | Mark]) -> None:
        entry.unsent.clear()
        entry.move(UtteranceState.SENT)
        self._mark(entry, now, out, final=True)

    def _mark(self, entry: UtteranceAudio, now: float, out: list[Audio | Mark], *, final: bool) -> None:
        self._serial += 1
        name = f"{entry.name}:{self._serial}"
        deadline = max(self._ends_at, now) + (ECHO_PATIENCE if self._marks else 0.0)
        certain = self._certain if self._marks and self._certain is not None else self._sent
        self._open.append(_OpenMark(name, self._sent, certain, deadline, entry, final))
        self._last_mark = self._sent
        self._certain = None
        if self._marks:
            out.append(Mark(name))

    def _settle(self, now: float) -> None:
        while self._open and self._open[0].deadline <= now + _SLACK:
            mark = self._open.popleft()
            mark.utterance.unconfirmed = self._marks
            self._played(mark, mark.deadline)

    def _played(self, mark: _OpenMark, at: float) -> None:
        self._anchor = (mark.position, at)
        if mark.final:
            mark.utterance.heard = mark.utterance.sent
            mark.utterance.move(UtteranceState.HEARD)
            self._done.append(mark.utterance.name)

    def _head(self, now: float) -> int:
        position, since = self._anchor
        cap = self._open[0].certain if self._open else self._sent
        return max(position, min(position + int((now - since) * self._rate + _SLACK), cap))

    def _heard(self, entry: UtteranceAudio, head: int) -> int:
        return max(0, min(head - entry.start, entry.sent))
