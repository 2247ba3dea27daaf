"""An event loop whose clock jumps to the next timer when nothing else is left to do, so that a conversation of half a
minute takes as long as its code.

Sockets of this process are real and keep working: data on loopback is looked for before the clock moves. Work that the
loop cannot see the end of stops the clock instead: jobs given to `run_in_executor`, subprocesses, and whatever a test
wraps in `external_work` (another process on a socket, a thread that reports by `call_soon_threadsafe`).

For all async tests of a module: `from tests.virtual_time import event_loop_policy as event_loop_policy`.
By hand: `asyncio.Runner(loop_factory=VirtualTimeLoop)`.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple

import pytest

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_Ready = list[tuple[selectors.SelectorKey, int]]

START = 1000.0
"""What the clock of a new loop shows."""
_LOOK_AGAIN = 0.1
"""Virtual seconds after which a quiet loopback gets a moment of real time: on a loaded machine the kernel may deliver
late, and a deadline must not pass because of that."""
_MOMENT, _LONG_MOMENT = 0.001, 0.005


class DeadLock(RuntimeError):
    """Nothing can ever happen again in this loop, or what it waits for outside does not end."""


class _JumpingSelector(selectors.DefaultSelector):
    """Decides, each time the loop would sleep, whether the clock jumps instead."""

    def __init__(self, patience: float) -> None:
        super().__init__()
        self.now = START
        self.external = 0
        self.processes: list[asyncio.SubprocessTransport] = []
        self._patience = patience
        self._quiet = 0.0

    def select(self, timeout: float | None = None) -> _Ready:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            self._quiet = 0.0 if ready else self._quiet
            return ready
        if timeout is None or self._busy():
            return self._wait(timeout)
        ready = self._last_look(timeout)
        if not ready:
            self.now += timeout
        return ready

    def _busy(self) -> bool:
        self.processes = [process for process in self.processes if process.get_returncode() is None]
        return self.external > 0 or bool(self.processes)

    def _wait(self, timeout: float | None) -> _Ready:
        """Let real time pass, and none of ours, until something comes in."""
        until = time.monotonic() + self._patience
        while not (ready := super().select(0.02)):
            if timeout is not None and not self._busy():
                return []
            if time.monotonic() > until:
                raise DeadLock(
                    f"nothing happened for {self._patience} real seconds; timers: {timeout is not None}, "
                    f"external work: {self.external}, processes: {[p.get_pid() for p in self.processes]}"
                )
        self._quiet = 0.0
        return ready

    def _last_look(self, jump: float) -> _Ready:
        self._quiet += jump
        if self._quiet < _LOOK_AGAIN:
            return []
        self._quiet = 0.0
        return super().select(_LONG_MOMENT if jump >= 1.0 else _MOMENT)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module. `patience`: real seconds without any event after which a `DeadLock` is raised."""

    def __init__(self, patience: float = 10.0) -> None:
        self._jumping = _JumpingSelector(patience)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds."""
        return self._jumping.now

    @contextmanager
    def external_work(self) -> Generator[None]:
        """The clock stands still while this is open."""
        self._jumping.external += 1
        try:
            yield
        finally:
            self._jumping.external -= 1

    def run_in_executor(  # pyright: ignore[reportIncompatibleMethodOverride] a subset of what the stub says
        self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """As ever; the clock stands still until the job is done."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.external += 1
        future.add_done_callback(self._job_done)
        return future

    async def subprocess_exec(  # pyright: ignore[reportIncompatibleMethodOverride] arguments pass through
        self, *args: Any, **options: Any
    ) -> tuple[asyncio.SubprocessTransport, asyncio.SubprocessProtocol]:
        """As ever; the clock stands still until the process has exited."""
        with self.external_work():
            transport, protocol = await super().subprocess_exec(*args, **options)
        self._jumping.processes.append(transport)
        return transport, protocol

    async def subprocess_shell(  # pyright: ignore[reportIncompatibleMethodOverride] arguments pass through
        self, *args: Any, **options: Any
    ) -> tuple[asyncio.SubprocessTransport, asyncio.SubprocessProtocol]:
        """As ever; the clock stands still until the shell has exited."""
        with self.external_work():
            transport, protocol = await super().subprocess_shell(*args, **options)
        self._jumping.processes.append(transport)
        return transport, protocol

    def _job_done(self, _future: asyncio.Future[Any]) -> None:
        self._jumping.external -= 1


class VirtualTimePolicy(asyncio.DefaultEventLoopPolicy):
    """Makes loops with virtual time."""

    def new_event_loop(self) -> VirtualTimeLoop:
        """A loop whose clock shows START."""
        return VirtualTimeLoop()


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """Import this into a test module, and its async tests and fixtures run in virtual time."""
    return VirtualTimePolicy()
