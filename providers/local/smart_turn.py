"""Smart Turn v3.2: hears from intonation, pace and trailing sounds whether a speaker has finished.

The network takes the log-mel picture of the last 8 s, so it needs no words and knows many languages. One decision costs
about 45 ms of CPU: all calls share one worker thread and one bounded queue, and a decision that comes too late is none.
It judges people: on espeak-ng's synthetic speech its scores are no better than chance (measured: complete sentences
against ones cut short, AUC 0.33-0.63 over 14 voices at 3 speeds), so tests can check the numbers, not the judgement.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import soxr

from providers.errors import TimedOut, Unavailable
from providers.local.mel import RATE, log_mel
from providers.local.models import SMART_TURN, model_path
from providers.local.onnx import Model, load

WINDOW = 8 * RATE
"""Samples the network sees."""
MAX_WAITING = 32
"""Decisions under way or waiting; 32 take about 1.4 s on a free core, past the deadline of the last ones."""
DEADLINE = 1.0
"""Seconds from the question to the answer; the pipeline's silence limit decides when there is none."""
_FULL_SCALE = np.float32(32768)


class SmartTurn:
    """The shared end-of-turn model (`providers.base.EndOfTurnModel`)."""

    def __init__(self, model: Model | None = None) -> None:
        """Loads the model file (0.1 s, blocking: do it at start). Raises Unavailable when it is missing."""
        self._model = model or load(model_path(SMART_TURN))
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="smart-turn")
        self._waiting = 0
        self._closed = False

    async def probability(self, pcm: bytes, rate: int) -> float:
        """0..1 that the speaker of this 16-bit mono audio has finished; the last 8 s count.

        Raises Unavailable when 32 decisions are waiting already, TimedOut after 1 s.
        """
        if self._closed or self._waiting >= MAX_WAITING:
            why = "is closed" if self._closed else f"has {self._waiting} decisions waiting"
            raise Unavailable(f"Smart Turn {why}", vendor="local", code="STT_ERROR")
        self._waiting += 1
        try:
            decision = asyncio.get_running_loop().run_in_executor(self._worker, self._decide, pcm, rate)
            async with asyncio.timeout(DEADLINE):
                return await decision
        except TimeoutError:
            raise TimedOut(f"No end-of-turn decision in {DEADLINE:g} s", vendor="local", code="STT_ERROR") from None
        finally:
            self._waiting -= 1

    async def aclose(self) -> None:
        """Drop what waits; the decision under way, if any, ends by itself. Idempotent."""
        self._closed = True
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _decide(self, pcm: bytes, rate: int) -> float:
        return float(self._model.run(None, {"input_features": features(pcm, rate)})[0][0, 0])


def features(pcm: bytes, rate: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The network's input (1, 80, 800): last 8 s at 16 kHz, padded on the left, mean 0 and variance 1."""
    samples = np.frombuffer(pcm[-8 * rate * 2 :], dtype=np.int16).astype(np.float32) / _FULL_SCALE
    if rate != RATE:
        samples = soxr.resample(samples, rate, RATE, quality="HQ")[-WINDOW:]
    window = np.zeros(WINDOW, dtype=np.float32)
    if len(samples):
        window[-len(samples) :] = samples
    window = (window - window.mean()) / np.sqrt(window.var() + np.float32(1e-7))
    return log_mel(window)[None]
