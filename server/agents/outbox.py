"""What waits to be sent to one agent's socket.

Bounded (protocol §4.16): a client that reads too slowly first loses loudness figures, then interim texts and words,
and in the end its connection, so that media never waits for a control socket.

Recordings of calls are as large as all else together never is. They wait apart, behind everything that is said of other
calls, and are encoded while they are sent; the end of a call whose recording waits, waits behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from wire.events import AudioMetrics, BotWord, CallEnded, CallError, CallRecording, Event, UserSpeaking
from wire.recording import WavSound

METRICS_LIMIT: Final = 4 * 1024 * 1024
"""Bytes waiting from which on `audio.metrics` are dropped."""
INTERIM_LIMIT: Final = 6 * 1024 * 1024
"""Bytes waiting from which on `user.speaking` and `bot.word` are dropped, too."""
HARD_LIMIT: Final = 16 * 1024 * 1024
"""Bytes waiting that are too many: the client is cut off."""

RECORDINGS_LIMIT: Final = 1024 * 1024 * 1024
"""Bytes of recordings waiting from which on a further one is left out, and an error told in its place. Their samples
were in memory before, while the calls lasted: a client that is merely slow to fetch them is no reason to cut it off."""


def _apart(sound: object) -> str:
    if isinstance(sound, WavSound):
        return ""
    raise NotImplementedError(f"no JSON for {type(sound).__name__}")


_encoder: Final = msgspec.json.Encoder(enc_hook=_apart)


@dataclass(frozen=True, slots=True)
class LargeFrame:
    """A frame of `size` bytes that is made while it is sent."""

    head: bytes
    sound: WavSound
    tail: bytes

    @staticmethod
    def of(event: CallRecording) -> LargeFrame:
        """The frame of a recording."""
        # Quotes within texts are escaped, so this is the field and nothing else.
        head, _, tail = _encoder.encode(event).partition(b'"audio":""')
        return LargeFrame(head + b'"audio":"', event.audio, b'"' + tail)

    @property
    def size(self) -> int:
        """Bytes of it."""
        return len(self.head) + len(self.sound) + len(self.tail)

    def pieces(self) -> Iterator[bytes]:
        """All of it, in order."""
        yield self.head
        yield from self.sound.base64()
        yield self.tail


class Outbox:
    """Frames in order, each encoded once. `put` never blocks; one writer awaits `next`."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._recordings: deque[LargeFrame | bytes] = deque()
        self._recorded: set[str] = set()
        """Calls whose recording was put in and whose end was not."""
        self.recordings_size = 0
        """Bytes of recordings waiting."""
        self._ready = asyncio.Event()
        self._closed = False
        self.size = 0
        """Bytes waiting."""
        self.dropped = 0
        """Frames left out so far."""

    def __len__(self) -> int:
        """Frames waiting."""
        return len(self._frames) + len(self._recordings)

    def put(self, event: Event) -> bool:
        """Queue an event (or drop it by the policy above). False: too much is waiting, the client must go."""
        if self._closed or self._expendable(event):
            self.dropped += 1
            return True
        if isinstance(event, CallRecording):
            refusal = self._put_recording(event)
            if refusal is None:
                return True
            event = refusal
        frame = _encoder.encode(event)
        if self.size + len(frame) > HARD_LIMIT:
            return False
        if isinstance(event, CallEnded) and event.call_id in self._recorded:
            self._recorded.remove(event.call_id)
            self._recordings.append(frame)
        else:
            self._frames.append(frame)
        self.size += len(frame)
        self._ready.set()
        return True

    def close(self, *, discard: bool = False) -> None:
        """Take nothing more; what waits is still sent, unless `discard`."""
        self._closed = True
        if discard:
            self.dropped += len(self)
            self._frames.clear()
            self._recordings.clear()
            self.size = self.recordings_size = 0
        self._ready.set()

    async def next(self) -> bytes | LargeFrame | None:
        """The next frame; None when closed and empty."""
        while not len(self):
            if self._closed:
                return None
            self._ready.clear()
            await self._ready.wait()
        frame = self._frames.popleft() if self._frames else self._recordings.popleft()
        if isinstance(frame, LargeFrame):
            self.recordings_size -= frame.size
        else:
            self.size -= len(frame)
        return frame

    def _put_recording(self, event: CallRecording) -> CallError | None:
        """Queue it apart; when that is too much, what to tell instead."""
        frame = LargeFrame.of(event)
        if self.recordings_size + frame.size > RECORDINGS_LIMIT:
            self.dropped += 1
            error = CallError(code="RECORDING_ERROR", error="Too many recordings wait for this connection")
            error.agent_id, error.call_id, error.session_id = event.agent_id, event.call_id, event.session_id
            error.seq, error.ts = event.seq, event.ts
            return error
        self._recordings.append(frame)
        self._recorded.add(event.call_id)
        self.recordings_size += frame.size
        self._ready.set()
        return None

    def _expendable(self, event: Event) -> bool:
        if self.size < METRICS_LIMIT:
            return False
        return isinstance(event, AudioMetrics) or (
            self.size >= INTERIM_LIMIT and isinstance(event, UserSpeaking | BotWord)
        )
