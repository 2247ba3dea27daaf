"""The main job in one command: a gateway, an agent in its own process, and a phone call with spoken audio.

Nothing is scripted past the caller's own lines: the words come out of recognition, the booking out of the agent.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from demo.agent import DEMO_NUMBER
from demo.caller import CallOver, SoftwareCaller
from demo.dialling import Dial, Outcome
from demo.transcript import Transcript
from demo.voice import speak

LINES: Final = (
    "I would like to book a table for four",
    "on friday",
    "at eight o'clock",
    "yes please",
)
"""What the caller says, one line an answer of the bot."""
START_SECONDS: Final = 30.0
EVENT_MARK: Final = b"event "
"""How the agent's process marks the frames it prints for us."""


class DemoFailed(Exception):
    """The demo cannot go on; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How the demo went: whether the booking was made, and the call as a stereo WAV (caller left, bot right)."""

    booked: bool
    wav: bytes


async def show(out: Callable[[str], None], *, colour: bool) -> Shown:
    """Run the demo. `out` gets what people read. Raises DemoFailed."""
    transcript = Transcript(colour=colour)
    port, key = _free_port(), f"pk_demo_{secrets.token_hex(12)}"
    out("starting the gateway and the agent, each in its own process …")
    async with asyncio.TaskGroup() as tasks:
        gateway = await _gateway(port, key)
        agent = await _agent(port, key)
        try:
            await _listening(port, gateway)
            ready = asyncio.Event()
            events = tasks.create_task(_events(agent, transcript, ready, out))
            await _within(ready.wait(), START_SECONDS, "the agent did not register")
            out(f"ringing {DEMO_NUMBER} …\n")
            caller = await _call(port)
            await asyncio.sleep(0.3)
            events.cancel()
        finally:
            await _stop(agent)
            await _stop(gateway)
    out("")
    for line in transcript.table():
        out(line)
    heard = [f"{seconds * 1000:.0f}" for seconds in caller.response_times()]
    out(f"\nas heard on the line, from the caller's last sound to the bot's first: {', '.join(heard)} ms")
    return Shown(transcript.booked, caller.stereo_wav())


async def _call(port: int) -> SoftwareCaller:
    """Ring, say each line after each answer, until the bot hangs up."""
    async with SoftwareCaller(Dial(f"http://127.0.0.1:{port}", DEMO_NUMBER)) as caller:
        answer = await caller.ring()
        if answer.outcome is not Outcome.CONNECTED:
            raise DemoFailed(f"the gateway did not take the call: {answer.outcome.name.lower()} {answer.detail}")
        with suppress(CallOver):
            for line in LINES:
                await caller.wait_bot_done()
                caller.say(await speak(line))
            await caller.wait_ended(timeout_s=30)
    return caller


async def _events(
    agent: asyncio.subprocess.Process, transcript: Transcript, ready: asyncio.Event, out: Callable[[str], None]
) -> None:
    assert agent.stdout is not None
    async for line in agent.stdout:
        if not line.startswith(EVENT_MARK):
            continue
        frame = line[len(EVENT_MARK) :]
        for text in transcript.read(frame):
            out(text)
        if transcript.registered:
            ready.set()


async def _gateway(port: int, key: str) -> asyncio.subprocess.Process:
    """A gateway with built-in engines only, whatever keys this shell has."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_AUTH_TOKEN"))}
    environment |= {
        "PORT": str(port),
        "API_KEYS": key,
        "LOG_LEVEL": "warning",
        "DATA_DIR": tempfile.gettempdir(),
        "TWILIO_ACCOUNT_SID": "",
        "TWILIO_AUTH_TOKEN": "",
        "VOICE_GATEWAY_ENV_FILE": os.devnull,
    }
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "server.cli", "serve", "--quiet", env=environment)


async def _agent(port: int, key: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "PINECALL_API_KEY": key}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "demo.agent",
        "--url",
        f"ws://127.0.0.1:{port}/client",
        "--patience",
        str(START_SECONDS),
        "--print-events",
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        limit=1 << 20,
    )


async def _listening(port: int, gateway: asyncio.subprocess.Process) -> None:
    """Until the gateway's port answers."""

    async def answers() -> None:
        while gateway.returncode is None:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)
        raise DemoFailed("the gateway did not start; its own message is above")

    await _within(answers(), START_SECONDS, "the gateway did not start in time")


async def _within(job: Awaitable[object], seconds: float, failure: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await job
    except TimeoutError:
        raise DemoFailed(failure) from None


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
