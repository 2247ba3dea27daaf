"""A real redis-server on a free port, that forgets everything when it is stopped, and the stores of gateways on it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pipelines.clock import LoopClock
from server.store.connection import StoreTimes
from server.store.redis import RedisStore

_PATIENCE = 10.0
QUICK = StoreTimes(lease=2.0, renew=0.2, retry=0.1, patience=0.4, poll=0.05, believed=0.3)
"""A crash is noticed after two seconds."""


class RedisServer:
    """One that can be killed, frozen and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "dir": str(self._folder),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        ends = time.monotonic() + _PATIENCE
        while not self._answers():
            assert self._process.poll() is None, "redis-server does not start"
            assert time.monotonic() < ends, "redis-server does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It takes connections and questions, and answers none."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *words: str) -> str:
        """A command, and the answer as redis-cli would show it."""
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as asking:
                asking.sendall(b"PING\r\n")
                return asking.recv(16).startswith(b"+PONG")
        except OSError:
            return False


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.fail("redis-server is not installed: run `make setup`, or apt-get install redis-server")
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


async def eventually(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE):
        while not met():  # noqa: ASYNC110 - what is waited for is in another process, or nobody's event
            await asyncio.sleep(0.01)


class Node(RedisStore):
    """A gateway's store that can crash."""

    upkeep: asyncio.Task[None]

    def crash(self) -> None:
        """The process dies: its lease is not renewed any more, and nothing is given back."""
        self.upkeep.cancel()


@asynccontextmanager
async def node(server: RedisServer, times: StoreTimes | None = None) -> AsyncGenerator[Node]:
    """A store whose upkeep runs, and that has found Redis if it is there."""
    store = Node(server.url, LoopClock(), times)
    async with asyncio.TaskGroup() as tasks:
        store.upkeep = tasks.create_task(store.run())
        if server.running:
            await eventually(lambda: store.reachable)
        yield store
        store.upkeep.cancel()
    await store.close()
