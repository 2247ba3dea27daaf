"""An event loop whose clock jumps over every wait that no socket ends: deadlines of seconds pass in milliseconds.

Real sockets of this process still work, because loopback data is there at once. Nothing may happen in other threads or
processes, whose answers would come too late for a clock that has jumped.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec

P = ParamSpec("P")

GRACE = 0.003
"""Real seconds given to the sockets before the clock jumps."""


class _JumpingSelector(selectors.BaseSelector):
    def __init__(self) -> None:
        self._inner = selectors.DefaultSelector()
        self.jumped = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= GRACE:
            return self._inner.select(timeout)
        ready = self._inner.select(GRACE)
        if not ready:
            self.jumped += timeout - GRACE
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return super().time() + self._clock.jumped


def jumping(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test on a loop whose clock jumps."""

    async def run(*args: P.args, **kwargs: P.kwargs) -> None:
        await test(*args, **kwargs)

    @functools.wraps(test)
    def on_jumping_loop(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(run(*args, **kwargs))

    return on_jumping_loop
