"""The demo agent beside a gateway that nobody has set up yet: a fresh clone has somebody to talk with at once."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Final

import structlog

log = structlog.get_logger(__name__)

_STOP_SECONDS: Final = 3.0
_PATIENCE: Final = "20"
"""Seconds for which it tries to reach the gateway."""


class DemoAgent:
    """A process of its own, as every agent is. It ends with the gateway, whatever becomes of that: it lives on its
    connection. One that leaves is not started again: somebody else has its name, or sent it away."""

    def __init__(self, key: str, environment: Mapping[str, str] = os.environ) -> None:
        """`key` is handed over where no other user of the machine can read it."""
        self._environment = {**environment, "PINECALL_API_KEY": key}
        self._listening = asyncio.Event()
        self._port = 0

    def listens_on(self, port: int) -> None:
        """The gateway is there, on this port."""
        self._port = port
        self._listening.set()

    async def run(self) -> None:
        """Its life, once the gateway listens; its process is gone when this returns, or is cancelled."""
        await self._listening.wait()
        url = f"ws://127.0.0.1:{self._port}/client"
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "demo.agent", "--url", url, "--patience", _PATIENCE),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
                # Ctrl-C is for the gateway, which says goodbye to its callers first.
                start_new_session=True,
            )
        except OSError as error:
            log.warning("demo_agent_not_started", error=str(error))
            return
        try:
            _, said = await process.communicate()
            log.info("demo_agent_left", why=said.decode(errors="replace").strip()[-200:])
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
