"""What voice activity costs a process, by how chunks are gathered and where the network runs.

    .venv/bin/python -m benchmarks.vad [seconds] [calls ...]

Paced 20 ms frames of 8 kHz audio for N calls at random phases on one uvloop. CPU is of the whole process minus the
same run without a network; delay is from the feed that completes a chunk to its callback; lag is how late a 1 ms timer
fires.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import deque

import numpy as np
import uvloop

from providers.base import VadFrame
from providers.local.vad import SileroVad

FRAME = 320
FRAME_S = 0.02

Measured = tuple[float, list[float], list[float]]


async def pace(vad: SileroVad | None, calls: int, seconds: float) -> Measured:
    """CPU seconds, delays (s), loop lags (s)."""
    loop = asyncio.get_running_loop()
    noise = np.random.default_rng(1).normal(0, 300, 8000).astype(np.int16).tobytes()
    delays: list[float] = []
    lags: list[float] = []
    tasks: list[asyncio.Task[None]] = []
    rng = random.Random(1)
    stop = loop.time() + seconds

    async def call(phase: float) -> None:
        fed: deque[tuple[int, float]] = deque()

        def on_frame(frame: VadFrame) -> None:
            while fed and fed[0][0] < frame.end_ms:
                fed.popleft()
            delays.append(loop.time() - fed[0][1])

        stream = vad.stream(8000, on_frame) if vad else None
        due, sent = loop.time() + phase, 0
        while due < stop:
            await asyncio.sleep(max(0.0, due - loop.time()))
            sent += 20
            if stream is not None:
                fed.append((sent, loop.time()))
                stream.feed(noise[sent % 400 * 16 : sent % 400 * 16 + FRAME])
            due += FRAME_S

    async def watch() -> None:
        while loop.time() < stop:
            before = loop.time()
            await asyncio.sleep(0.001)
            lags.append(loop.time() - before - 0.001)

    cpu = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(calls):
            tasks.append(group.create_task(call(rng.random() * 0.1)))
        tasks.append(group.create_task(watch()))
    return time.process_time() - cpu, delays, lags


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    counts = [int(one) for one in sys.argv[2:]] or [10, 20, 50, 100]
    variants = [("unbatched, loop", 0.0, 1000), ("unbatched, thread", 0.0, -1)]
    for gather in (4, 8, 12, 20):
        variants += [(f"{gather} ms, loop", gather / 1000, 1000), (f"{gather} ms, thread", gather / 1000, -1)]
        variants += [(f"{gather} ms, loop <= 8", gather / 1000, 8)]
    print(f"{'':22} {'calls':>5} {'ms CPU/call-s':>14} {'delay p50 ms':>13} {'p99':>6} {'lag p99 ms':>11}")
    for calls in counts:
        idle, _, lag = uvloop.run(pace(None, calls, seconds))
        row("no network", calls, idle / calls / seconds, [], lag)
        for name, gather, inline in variants:

            async def run(gather: float = gather, inline: int = inline, calls: int = calls) -> Measured:
                vad = SileroVad(gather=gather, inline=inline)
                result = await pace(vad, calls, seconds)
                await vad.aclose()
                return result

            cpu, delays, lag = uvloop.run(run())
            row(name, calls, (cpu - idle) / calls / seconds, delays, lag)


def row(name: str, calls: int, cost: float, delays: list[float], lags: list[float]) -> None:
    p50, p99 = (float(np.quantile(delays, q)) * 1000 for q in (0.5, 0.99)) if delays else (0.0, 0.0)
    print(f"{name:22} {calls:5} {cost * 1000:14.2f} {p50:13.2f} {p99:6.2f} {np.quantile(lags, 0.99) * 1000:11.2f}")


if __name__ == "__main__":
    main()
