"""An app written with a real SDK build, in a Node process of its own: what it saw, and orders to it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCENARIOS = Path(__file__).parent / "scenarios"
PATIENCE = 20.0

Sight = dict[str, Any]


@dataclass
class NodeApp:
    """A running scenario. `seen` grows; `wait` takes the next sight of a kind after the last one waited for."""

    process: asyncio.subprocess.Process
    seen: list[Sight] = field(default_factory=list[Sight])
    grumbles: list[str] = field(default_factory=list[str])
    """What the SDK itself printed."""
    _next: int = 0
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            text = line.decode()
            if text.startswith('{"saw":'):
                self.seen.append(json.loads(text))
            else:
                self.grumbles.append(text)
            self._more.set()
        self.seen.append({"saw": "exit"})
        self._more.set()

    async def wait(self, what: str, patience: float = PATIENCE, **fields: object) -> Sight:
        """Raises AssertionError with all that was seen when the time is up or the process has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self.seen[-1:] != [{"saw": "exit"}] or self._next < len(self.seen):
                    while self._next < len(self.seen):
                        sight = self.seen[self._next]
                        self._next += 1
                        if sight["saw"] == what and all(sight.get(key) == value for key, value in fields.items()):
                            return sight
                    self._more.clear()
                    await self._more.wait()
        raise AssertionError(f"no {what} {fields}; seen {self.seen}; printed {''.join(self.grumbles)}")

    async def order(self, order: str, **fields: object) -> Any:
        """Have something done, and its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"order": order, **fields}).encode() + b"\n")
        await self.process.stdin.drain()
        return (await self.wait("done", order=order)).get("answer")

    def count(self, what: str) -> int:
        return sum(sight["saw"] == what for sight in self.seen)


@asynccontextmanager
async def node_app(
    scenario: str,
    sdk: Path,
    gateway: str,
    key: str,
    log: Path | None = None,
    mode: dict[str, str] | None = None,
    **options: object,
) -> AsyncGenerator[NodeApp]:
    """Run `scenarios/<scenario>.mjs` with that SDK build against that gateway; it ends with its stdin.

    Into `log` the SDK writes every frame, as all its eras can. `mode` is more of its environment.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PINECALL_")},
        **{"SDK": str(sdk), "GATEWAY": gateway, "KEY": key, "OPTIONS": json.dumps(options)},
        **({"PINECALL_LOG": str(log)} if log else {}),
        **(mode or {}),
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCENARIOS / f"{scenario}.mjs"),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )
    app = NodeApp(process)
    listening = asyncio.create_task(app.listen())
    try:
        yield app
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await listening
