"""The server of the benchmark: the real gateway in a process of its own, pinned to one core, asked over a pipe."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.phone_engines import BenchEngines, Decision
from server.app import GatewayServer, create_server
from server.auth import Keys
from server.logs import configure_logging
from server.settings import Settings

KEY = "pk_benchmark_0001"
PROBE_S = 0.01
_START_S = 10.0


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """`core` None: not pinned. `answer` is what the model says to everything."""

    core: int | None
    answer: str


@dataclass(frozen=True, slots=True)
class Sample:
    """The process as of now. `lags` (s) and `decisions` are those since the last sample."""

    cpu_s: float
    rss_bytes: int
    lags: list[float]
    decisions: list[Decision]


@dataclass(frozen=True, slots=True)
class Look:
    """A question. `tidy`: free what is garbage before memory is read; that stops the loop for tens of ms."""

    tidy: bool = False


class LagProbe:
    """How late a timer of `PROBE_S` on an absolute schedule fires. The loop's own timers have a grain of 1 ms."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._due = time.monotonic()
        self._timer = self._loop.call_soon(self._tick)

    def close(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        now = time.monotonic()
        self.lags.append(now - self._due)
        self._due = max(self._due + PROBE_S, now)
        self._timer = self._loop.call_later(self._due - now, self._tick)


def serve(pipe: Connection, plan: ServerPlan) -> None:
    """Body of the process. Tells the port, then answers each `Look` with a `Sample` and ends on anything else."""
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    configure_logging("error", "console")
    uvloop.run(_serve(pipe, plan))


async def _serve(pipe: Connection, plan: ServerPlan) -> None:
    engines = BenchEngines(plan.answer)
    keys: dict[str, Any] = dict.fromkeys(("deepgram_api_key", "elevenlabs_api_key", "openai_api_key"), "benchmark")
    settings = Settings(_env_file=None, port=0, **keys)  # pyright: ignore[reportCallIssue]
    server = create_server(settings, Keys([("org_main", KEY)]), engines)
    serving = asyncio.create_task(server.serve())
    try:
        await _started(server, serving)
        pipe.send(server.servers[0].sockets[0].getsockname()[1])
        await _answer(pipe, engines)
    finally:
        server.should_exit = True
        await serving
        await engines.aclose()


async def _started(server: GatewayServer, serving: asyncio.Task[None]) -> None:
    async with asyncio.timeout(_START_S):
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
    if serving.done():
        await serving
        raise RuntimeError("the gateway did not start")


async def _answer(pipe: Connection, engines: BenchEngines) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    probe = LagProbe()

    def on_question() -> None:
        try:
            question = pipe.recv()
        except EOFError:
            question = None
        if isinstance(question, Look):
            pipe.send(_sample(probe, engines, question))
        else:
            loop.remove_reader(pipe.fileno())
            stopped.set()

    loop.add_reader(pipe.fileno(), on_question)
    await stopped.wait()
    probe.close()


def _sample(probe: LagProbe, engines: BenchEngines, look: Look) -> Sample:
    cpu = time.process_time()
    if look.tidy:
        gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    sample = Sample(cpu, pages * resource.getpagesize(), probe.lags.copy(), engines.decisions.copy())
    probe.lags.clear()
    engines.decisions.clear()
    return sample
