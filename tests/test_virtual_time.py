"""The loop of the tests: its clock jumps, but never past anything that is still going on."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.virtual_time import START, DeadLock, VirtualTimeLoop
from tests.virtual_time import event_loop_policy as event_loop_policy


async def _ticking(ticks: list[float]) -> None:
    while True:
        await asyncio.sleep(0.02)
        ticks.append(asyncio.get_running_loop().time())


def _loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


async def test_an_hour_passes_at_once_and_timers_fire_in_order() -> None:
    loop, fired = _loop(), list[tuple[str, float]]()

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        fired.append((name, loop.time() - START))

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for name, seconds in (("hour", 3600.0), ("second", 1.0), ("minute", 60.0)):
            group.create_task(sleeper(name, seconds))
    assert fired == [("second", 1.0), ("minute", 60.0), ("hour", 3600.0)]
    assert time.monotonic() - began < 5


async def test_a_minute_over_real_sockets_takes_seconds_and_stays_in_order_and_in_time() -> None:
    loop = _loop()
    received: list[tuple[int, float]] = []

    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}") as socket, asyncio.TaskGroup() as group:

            async def collect() -> None:
                while len(received) < 3000:
                    received.append((int(await socket.recv()), loop.time()))

            group.create_task(collect())
            began, start = time.monotonic(), loop.time()
            for number in range(3000):
                await socket.send(str(number))
                await asyncio.sleep(0.02)
    assert [number for number, _ in received] == list(range(3000))
    late = [at - start - number * 0.02 for number, at in received]
    assert max(late) < 0.3
    assert loop.time() - start == pytest.approx(60, abs=0.1)
    assert time.monotonic() - began < 20


async def test_a_reply_on_a_socket_comes_before_a_far_deadline() -> None:
    async def slow_echo(socket: ServerConnection) -> None:
        async for message in socket:
            await asyncio.sleep(1)
            await socket.send(message)

    async with serve(slow_echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}") as socket:
            for _ in range(50):
                await socket.send("x")
                async with asyncio.timeout(1.5):
                    assert await socket.recv() == "x"


async def test_a_job_in_a_thread_stops_the_clock() -> None:
    loop, ticks = _loop(), list[float]()
    ticking = loop.create_task(_ticking(ticks))
    await asyncio.sleep(0.1)
    before, start = len(ticks), loop.time()
    await asyncio.to_thread(time.sleep, 0.1)
    assert (len(ticks), loop.time()) == (before, start)
    await asyncio.sleep(1)
    assert len(ticks) - before == pytest.approx(50, abs=1)
    ticking.cancel()


async def test_a_subprocess_stops_the_clock_until_it_exits() -> None:
    loop, ticks = _loop(), list[float]()
    ticking = loop.create_task(_ticking(ticks))
    script = "import time; time.sleep(0.1); print('done')"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert (output, ticks, loop.time()) == (b"done\n", [], START)
    shell = await asyncio.create_subprocess_shell("sleep 0.05")
    assert await shell.wait() == 0
    assert ticks == []
    await asyncio.sleep(1)
    assert len(ticks) == pytest.approx(50, abs=1)
    ticking.cancel()


async def test_external_work_stops_the_clock() -> None:
    loop, ticks = _loop(), list[float]()
    ticking = loop.create_task(_ticking(ticks))
    answer: asyncio.Future[str] = loop.create_future()
    with loop.external_work():
        thread = threading.Timer(0.05, lambda: loop.call_soon_threadsafe(answer.set_result, "yes"))
        thread.start()
        assert await answer == "yes"
    thread.join()
    assert ticks == []
    ticking.cancel()


def test_a_dead_lock_is_loud() -> None:
    async def waits_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with (
        asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience=0.1)) as runner,
        pytest.raises(DeadLock, match="nothing happened"),
    ):
        runner.run(waits_for_ever())


def test_external_work_that_never_ends_is_loud() -> None:
    async def hangs() -> None:
        loop = _loop()
        with loop.external_work():
            await asyncio.sleep(1)

    with (
        asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience=0.1)) as runner,
        pytest.raises(DeadLock, match="external work: 1"),
    ):
        runner.run(hangs())
