"""Voice activity by Silero, one network for all calls, run on batches.

Each call is cut into chunks of 32 ms. Chunks wait a few ms for those of other calls and go through the network
together: a chunk in a batch of 16 costs 33 µs where a chunk alone costs 86 (8 kHz), and wakes are shared. Measured with
`python -m benchmarks.vad` (2 busy cores; ms of CPU per call-second, median delay of a chunk, p99 lateness of the loop):

    20 calls: unbatched 7.4, 0 ms, 2 ms · 8 ms on the loop 4.8, 5 ms, 1 ms · 8 ms in a thread 6.9, 5 ms, 1 ms
    50 calls: unbatched 3.2, 0 ms, 1 ms · 8 ms on the loop 1.3, 6 ms, 2 ms · 8 ms in a thread 1.7, 5 ms, 1 ms

So 8 ms of gathering (20 ms would save 1-3 ms more at 20 calls, and cost the caller 6 ms more at each barge-in and turn
end). A hop to a thread and back costs more than a small batch itself, so up to 16 chunks, half a millisecond, run on
the loop; bigger batches go to the one worker thread, where onnxruntime lets the loop run on.
"""

from __future__ import annotations

import asyncio
import audioop
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
import structlog
from numpy.typing import NDArray

from providers.base import VadFrame
from providers.local.models import SILERO_VAD, model_path
from providers.local.onnx import Model, load

CHUNK_MS = 32
GATHER = 0.008
"""Seconds a chunk may wait for company."""
INLINE = 16
"""Batches up to this size run on the event loop itself."""
MAX_BATCH = 64
MAX_BACKLOG = 31
"""Chunks of one call that may wait (1 s); beyond, its oldest are dropped and counted."""
_FLOOR_DB = -60.0
_FULL_SCALE = 32768

log = structlog.get_logger(__name__)


class _Phase(Enum):
    """What the batcher is doing."""

    IDLE = auto()
    GATHERING = auto()
    RUNNING = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class _Chunk:
    """`raw` is 32 ms of 16-bit audio with the last 4 ms before it: without that context the network hears nothing."""

    raw: bytes
    end_ms: int
    energy_db: float


@dataclass(frozen=True, slots=True)
class _Batch:
    """One chunk of each of some streams of one rate."""

    rate: int
    streams: list[VadStream]
    chunks: list[_Chunk]


class VadStream:
    """One call's ears (`providers.base.VoiceActivity`). Made by `SileroVad.stream`."""

    def __init__(self, owner: SileroVad, rate: int, on_frame: Callable[[VadFrame], None]) -> None:
        self.rate = rate
        self.state: NDArray[np.float32] = np.zeros((2, 1, 128), dtype=np.float32)
        self.waiting: deque[_Chunk] = deque()
        self.dropped = 0
        """Chunks dropped because the model fell behind."""
        self.closed = False
        self._owner = owner
        self._on_frame = on_frame
        self._size = rate * CHUNK_MS // 1000 * 2
        self._context = bytes(rate * 4 // 1000 * 2)
        self._pending = bytearray()
        self._taken = 0

    def feed(self, pcm: bytes) -> None:
        """Take 16-bit mono audio of any length. Frames come later, by callback, in order."""
        if self.closed:
            return
        self._pending += pcm
        while len(self._pending) >= self._size:
            chunk = bytes(self._pending[: self._size])
            del self._pending[: self._size]
            self._taken += 1
            level = audioop.rms(chunk, 2)
            energy = max(_FLOOR_DB, 20 * math.log10(level / _FULL_SCALE)) if level else _FLOOR_DB
            self.waiting.append(_Chunk(self._context + chunk, self._taken * CHUNK_MS, energy))
            self._context = chunk[-len(self._context) :]
            self._owner.wake(self)
        while len(self.waiting) > MAX_BACKLOG:
            self.waiting.popleft()
            self.dropped += 1
            self._owner.count_drop()

    def deliver(self, chunk: _Chunk, probability: float) -> None:
        """Tell the call about one chunk."""
        if not self.closed:
            self._on_frame(VadFrame(chunk.end_ms, probability, chunk.energy_db))

    def close(self) -> None:
        """Stop; no callback comes after this. Idempotent."""
        self.closed = True
        self.waiting.clear()
        self._pending.clear()


class SileroVad:
    """The shared network and its batcher. Belongs to the loop it is first used on."""

    def __init__(self, model: Model | None = None, *, gather: float = GATHER, inline: int = INLINE) -> None:
        """Loads the model file (0.1 s, blocking: do it at start). Raises Unavailable when it is missing."""
        self._model = model or load(model_path(SILERO_VAD))
        self._gather = gather
        self._inline = inline
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="silero-vad")
        self._ready: dict[VadStream, None] = {}
        self._phase = _Phase.IDLE
        self._timer: asyncio.Handle | None = None
        self._running: asyncio.Future[_Result] | None = None
        self.dropped = 0
        """Chunks of all calls dropped so far because the model fell behind."""

    @property
    def idle(self) -> bool:
        """No chunk waits or runs."""
        return self._phase in (_Phase.IDLE, _Phase.CLOSED)

    def stream(self, rate: int, on_frame: Callable[[VadFrame], None]) -> VadStream:
        """Listen to one call at 8000 or 16000 Hz. Raises ValueError for another rate."""
        if rate not in (8000, 16000):
            raise ValueError(f"Silero hears 8000 or 16000 Hz, not {rate}")
        return VadStream(self, rate, on_frame)

    def wake(self, stream: VadStream) -> None:
        """`stream` has a chunk waiting."""
        if self._phase is _Phase.CLOSED:
            return
        self._ready[stream] = None
        if self._phase is _Phase.IDLE:
            self._phase = _Phase.GATHERING
            self._timer = asyncio.get_running_loop().call_later(self._gather, self._run)

    def count_drop(self) -> None:
        """A stream dropped a chunk."""
        if self.dropped == 0:
            log.warning("vad_fell_behind", kept_ms=MAX_BACKLOG * CHUNK_MS)
        self.dropped += 1

    async def aclose(self) -> None:
        """Stop. No callback comes after this. Idempotent."""
        self._phase = _Phase.CLOSED
        self._ready.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._running is not None:
            await asyncio.wait([self._running], timeout=1)
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        """Put what has gathered through the network."""
        batch = self._next_batch()
        if batch is None:
            self._phase = _Phase.IDLE
            return
        self._phase = _Phase.RUNNING
        if len(batch.chunks) > self._inline:
            self._running = asyncio.get_running_loop().run_in_executor(self._worker, self._infer, batch)
            self._running.add_done_callback(lambda done: self._finish(batch, done))
            return
        done: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        try:
            done.set_result(self._infer(batch))
        except Exception as error:  # noqa: BLE001 - the root of an inline run; reported by _finish like the worker's
            done.set_exception(error)
        self._finish(batch, done)

    def _next_batch(self) -> _Batch | None:
        """The streams that have waited longest, of one rate; one chunk each, as each needs the state after the last."""
        streams: list[VadStream] = []
        rate = 0
        for stream in list(self._ready):
            if not stream.waiting:
                del self._ready[stream]
            elif len(streams) < MAX_BATCH and rate in (0, stream.rate):
                rate = stream.rate
                streams.append(stream)
        if not streams:
            return None
        chunks: list[_Chunk] = []
        for stream in streams:
            chunks.append(stream.waiting.popleft())
            del self._ready[stream]
            if stream.waiting:
                self._ready[stream] = None
        return _Batch(rate, streams, chunks)

    def _infer(self, batch: _Batch) -> _Result:
        audio = np.frombuffer(b"".join([chunk.raw for chunk in batch.chunks]), dtype=np.int16)
        samples = audio.reshape(len(batch.chunks), -1).astype(np.float32) / np.float32(_FULL_SCALE)
        states = np.concatenate([stream.state for stream in batch.streams], axis=1)
        output, after = self._model.run(None, {"input": samples, "state": states, "sr": np.array(batch.rate)})
        return output[:, 0].tolist(), after

    def _finish(self, batch: _Batch, done: asyncio.Future[_Result]) -> None:
        """Deliver a batch, and see to what became ready meanwhile."""
        self._running = None
        if done.cancelled() or self._phase is _Phase.CLOSED:
            return
        if error := done.exception():
            log.error("vad_failed", error=repr(error), chunks=len(batch.chunks))
        else:
            probabilities, after = done.result()
            for at, stream in enumerate(batch.streams):
                stream.state = after[:, at : at + 1]
                self._deliver(stream, batch.chunks[at], probabilities[at])
        self._phase = _Phase.IDLE
        if self._ready:
            # It has waited for as long as the network ran: no more gathering, but the loop gets a turn first.
            self._phase = _Phase.GATHERING
            self._timer = asyncio.get_running_loop().call_soon(self._run)

    def _deliver(self, stream: VadStream, chunk: _Chunk, probability: float) -> None:
        try:
            stream.deliver(chunk, probability)
        except Exception:  # the root of a call's callback: one call's mistake must not deafen the others
            log.exception("vad_callback_failed")


_Result = tuple[list[float], NDArray[np.float32]]
"""Probabilities, and the states after."""
