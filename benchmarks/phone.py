"""What a phone call costs the gateway, and how fast it answers. One command, one table.

    .venv/bin/python -m benchmarks.phone [--calls 10,20,50] [--seconds 10] [--only idle,talking,turns]

The server is the real gateway in a process of its own on the machine's last core; callers and the agent run in this
process on the first one. Vendors are replaced by engines that answer at once (`benchmarks.phone_engines`). Method and
definitions: docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, cycle, islice
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from benchmarks.phone_engines import WORD_MS
from benchmarks.phone_figures import REPLY_S, Spread, pacing_errors, response_times, spread
from benchmarks.phone_load import AgentProgram, Telephone, as_payloads
from benchmarks.phone_machine import machine, pinned
from benchmarks.phone_server import Look, Sample, ServerPlan, serve
from benchmarks.phone_sound import frames, noise, sentence
from demo.dialling import Dial

NUMBER = "+15550100100"
SHORT_ANSWER = "Certainly, one moment."
TALK_S = 60
WARM_CALLS = 2
"""They run before memory is first looked at: what the first use of everything costs is not a cost of a call."""
_PIPE_S = 20.0


class Scene(StrEnum):
    """What callers do."""

    IDLE = "idle"
    TALKING = "talking"
    TURNS = "turns"


WARM_UP_S = {Scene.IDLE: 2.5, Scene.TALKING: 8.0, Scene.TURNS: 2.5}


@dataclass(frozen=True, slots=True)
class Scenario:
    """`native`: the recogniser finds the turns (no voice detector). `agent_answers`: replies come over the socket."""

    name: str
    scene: Scene
    native: bool
    agent_answers: bool = False

    @property
    def answer(self) -> str:
        """What is said in reply."""
        if self.scene is Scene.TALKING:
            return " ".join(["tone"] * (TALK_S * 1000 // WORD_MS)) + "."
        return SHORT_ANSWER


SCENARIOS = (
    Scenario("idle, our voice detector", Scene.IDLE, native=False),
    Scenario("idle, recogniser's turns", Scene.IDLE, native=True),
    Scenario("bot talking, recogniser's turns", Scene.TALKING, native=True),
    Scenario("turns, recogniser's; server's model answers", Scene.TURNS, native=True),
    Scenario("turns, recogniser's; agent's program answers", Scene.TURNS, native=True, agent_answers=True),
    Scenario("turns, our voice detector; server's model answers", Scene.TURNS, native=False),
)


@dataclass(frozen=True, slots=True)
class Result:
    """One row. `unanswered` counts turns without a reply."""

    scenario: Scenario
    calls: int
    cpu_ms: float
    core: float
    memory_mb: float
    lag: Spread | None
    load_lag: Spread | None
    pacing: Spread | None
    response: Spread | None
    unanswered: int


class Sounds:
    """What callers say, encoded once."""

    def __init__(self) -> None:
        self._quiet = as_payloads(frames(noise(8.0)))
        self._sentence = as_payloads(frames(sentence()))
        self._random = random.Random(7)

    def of(self, scene: Scene) -> Iterator[bytes]:
        """One caller's frames, without end, beginning at a random point."""
        quiet = self._quiet
        if scene is Scene.IDLE:
            return islice(cycle(quiet), self._random.randrange(len(quiet)), None)
        if scene is Scene.TALKING:
            return chain(quiet[: self._random.randrange(50, 100)], self._sentence, cycle(quiet))
        turn = quiet[:60] + self._sentence + quiet[60:170]
        return chain(quiet[: self._random.randrange(len(turn))], cycle(turn))


async def measure(scenario: Scenario, calls: int, seconds: float, server_core: int | None) -> Result:
    """Run one scenario against a fresh server."""
    with _server(ServerPlan(server_core, scenario.answer)) as (port, sample):
        config: dict[str, object] = {
            "voice": "elevenlabs:voice-1",
            "stt": "deepgram-flux" if scenario.native else "local",
        }
        if not scenario.agent_answers:
            config["llm"] = "openai:gpt-4.1-mini"
        async with AgentProgram(port, NUMBER, config, scenario.answer if scenario.agent_answers else None) as agent:
            return await _run(scenario, calls, seconds, _Bench(port, agent, sample))


@dataclass(frozen=True, slots=True)
class _Bench:
    port: int
    agent: AgentProgram
    sample: Callable[[Look], Sample]


async def _run(scenario: Scenario, calls: int, seconds: float, bench: _Bench) -> Result:
    sounds, phones = Sounds(), list[Telephone]()
    warm = WARM_CALLS if calls > WARM_CALLS else 0
    try:
        await _dial(phones, warm, scenario.scene, sounds, bench)
        await asyncio.sleep(WARM_UP_S[scenario.scene] if warm else 0)
        empty = bench.sample(Look(tidy=True))
        await _dial(phones, calls - warm, scenario.scene, sounds, bench)
        await asyncio.sleep(WARM_UP_S[scenario.scene])
        for phone in phones:
            phone.lateness.clear()
        before, began = bench.sample(Look()), time.monotonic()
        await asyncio.sleep(seconds)
        after, ended = bench.sample(Look(tidy=True)), time.monotonic()
        await asyncio.sleep(REPLY_S if scenario.scene is Scene.TURNS else 0)
    finally:
        for phone in phones:
            phone.hang_up()
    responses = _responses(after, phones) if scenario.scene is Scene.TURNS else []
    cpu = after.cpu_s - before.cpu_s
    return Result(
        scenario,
        calls,
        cpu_ms=cpu / (ended - began) / calls * 1000,
        core=cpu / (ended - began),
        memory_mb=(after.rss_bytes - empty.rss_bytes) / (calls - warm) / 1e6,
        lag=spread(after.lags),
        load_lag=spread([late for phone in phones for late in phone.lateness]),
        pacing=spread([error for phone in phones for error in pacing_errors(phone.arrivals, began)])
        if scenario.scene is Scene.TALKING
        else None,
        response=spread([time for time in responses if time is not None]),
        unanswered=responses.count(None),
    )


async def _dial(phones: list[Telephone], count: int, scene: Scene, sounds: Sounds, bench: _Bench) -> None:
    """One after the other: the server numbers calls as they come, and only so do both sides mean the same one."""
    for _ in range(count):
        phone = Telephone(Dial(f"http://127.0.0.1:{bench.port}", NUMBER), sounds.of(scene))
        phones.append(phone)
        await phone.call()
        await bench.agent.call_started()


def _responses(after: Sample, phones: Sequence[Telephone]) -> list[float | None]:
    times: list[float | None] = []
    for number, phone in enumerate(phones):
        times += response_times([at for call, at in after.decisions if call == number], phone.audible)
    return times


@contextmanager
def _server(plan: ServerPlan) -> Generator[tuple[int, Callable[[Look], Sample]]]:
    """A server process; gives its port and a way to look at it."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = cast("tuple[Connection, Connection]", spawn.Pipe())
    process = spawn.Process(target=serve, args=(theirs, plan), name="gateway")
    process.start()
    theirs.close()
    try:
        port = _receive(ours)
        assert isinstance(port, int)

        def sample(look: Look) -> Sample:
            ours.send(look)
            answer = _receive(ours)
            assert isinstance(answer, Sample)
            return answer

        yield port, sample
        ours.send("stop")
        process.join(_PIPE_S)
    finally:
        ours.close()
        if process.is_alive():
            process.terminate()
            process.join()


def _receive(pipe: Connection) -> object:
    if not pipe.poll(_PIPE_S):
        raise TimeoutError("the server does not answer")
    return pipe.recv()


# --- the table ---


def table(results: Sequence[Result]) -> str:
    """Markdown."""
    head = [
        "scenario", "calls", "ms CPU / call-s", "core", "MB / call",
        "end of turn → audible ms: p50 / p99 / max (n)", "pacing error ms: p99 / max", "loop lag ms: p99 / max",
        "load late ms: p99 / max",
    ]  # fmt: skip
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *(_cells(result) for result in results)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cells(result: Result) -> list[str]:
    response, pacing, lag, load = result.response, result.pacing, result.lag, result.load_lag
    answered = ""
    if response is not None:
        missing = f", {result.unanswered} unanswered" if result.unanswered else ""
        answered = f"{response.p50:.1f} / {response.p99:.1f} / {response.worst:.1f} ({response.count}{missing})"
    return [
        result.scenario.name,
        str(result.calls),
        f"{result.cpu_ms:.1f}",
        f"{result.core:.0%}",
        f"{result.memory_mb:.2f}",
        answered,
        f"{pacing.p99:.1f} / {pacing.worst:.1f}" if pacing else "",
        f"{lag.p99:.1f} / {lag.worst:.1f}" if lag else "",
        f"{load.p99:.1f} / {load.worst:.1f}" if load else "",
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--calls", default="10,20,50", help="numbers of calls for idle and talking; turns: the middle one"
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="measured time of idle and talking; turns: three times"
    )
    parser.add_argument("--only", default="idle,talking,turns", help="which scenes")
    options = parser.parse_args()
    counts = [int(count) for count in options.calls.split(",")]
    scenes = {Scene(name) for name in options.only.split(",")}
    results: list[Result] = []
    with pinned() as core:
        print(machine(core), flush=True)
        for scenario in SCENARIOS:
            if scenario.scene not in scenes:
                continue
            turns = scenario.scene is Scene.TURNS
            for calls in [counts[len(counts) // 2]] if turns else counts:
                seconds = options.seconds * (3 if turns else 1)
                results.append(uvloop.run(measure(scenario, calls, seconds, core)))
                print(f"… {scenario.name}, {calls} calls: {results[-1].cpu_ms:.1f} ms CPU / call-s", flush=True)
    print()
    print(table(results))


if __name__ == "__main__":
    main()
