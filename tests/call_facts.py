"""What tests of whole calls ask about the frames an agent got and the sound a caller heard."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect

from demo.caller import Happening, SoftwareCaller
from demo.dialling import Answer, Dial
from demo.telephone import RATE, first_audible
from tests.phone_rig import Agent, Frame, Rig, names


@pytest.fixture
def faultless(caplog: pytest.LogCaptureFixture) -> Generator[list[dict[str, object]]]:
    """Nothing may go wrong unseen: no traceback in any log, ours or the libraries'. Gives what the gateway logged."""
    with capture_logs() as entries:
        yield entries  # pyright: ignore[reportReturnType] structlog's entries are plain dicts
    ours = [entry for entry in entries if entry["log_level"] in ("error", "critical")]
    others = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert not ours, ours
    assert not others, others


def about(agent: Agent, message_id: str) -> list[Frame]:
    """All frames about one message."""
    return [frame for frame in agent.frames if frame.get("message_id") == message_id]


def story(frames: list[Frame]) -> list[str]:
    """Event names in order, runs of `bot.word` as one."""
    told = names(frames)
    return [name for before, name in zip(["", *told], told, strict=False) if not name == before == "bot.word"]


SPOKEN = ["bot.speaking", "bot.word", "message.confirmed", "bot.finished"]
"""The life of a message that is heard to its end."""
CUT = ["bot.speaking", "bot.word", "message.confirmed", "bot.interrupted"]
"""The life of a message that is stopped after some of its words."""


def loop_time(rig: Rig, frame: Frame) -> float:
    """When that was stated, on the clock of the caller's moments."""
    return frame["ts"] - rig.gateway.clock.wall() + asyncio.get_running_loop().time()


def moments(caller: SoftwareCaller, what: Happening) -> list[float]:
    """When the caller noticed that."""
    return [moment.at for moment in caller.moments if moment.what is what]


def sound_between(caller: SoftwareCaller, start: float, end: float) -> bool:
    """Whether anything could be heard between two of the caller's times."""
    answered = moments(caller, Happening.ANSWERED)[0]
    at, until = (round((time - answered) * RATE) for time in (start, end))
    return first_audible(caller.heard[max(0, at) : until]) is not None


def heard_nothing(caller: SoftwareCaller) -> bool:
    """Whether the line was silent all the time."""
    return first_audible(caller.heard) is None


async def reply_to(agent: Agent, call_id: str, text: str, message_id: str) -> Frame:
    """Answer the user's next turn; gives its `turn.end`."""
    end = await agent.wait("turn.end", call_id=call_id)
    await agent.say(call_id, text, message_id, end["message_id"])
    await agent.wait("bot.finished", message_id=message_id)
    return end


class RawLine:
    """The carrier's end of one media socket, frame by frame, for what a good carrier never does."""

    def __init__(self, socket: ClientConnection, dial: Dial, answer: Answer) -> None:
        self.socket = socket
        self.stream_sid = "MZ" + dial.call_sid[2:]
        self.dial = dial
        self.answer = answer

    async def send(self, event: str, **body: object) -> None:
        await self.socket.send(json.dumps({"event": event, "streamSid": self.stream_sid, **body}))

    async def start(self, **parameters: str) -> None:
        """Say which call this is; `parameters` override those of the TwiML."""
        await self.socket.send('{"event":"connected","protocol":"Call","version":"1.0.0"}')
        body = {
            "streamSid": self.stream_sid,
            "accountSid": self.dial.account_sid,
            "callSid": self.dial.call_sid,
            "tracks": ["inbound"],
            "customParameters": {**self.answer.parameters, **parameters},
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        }
        await self.send("start", sequenceNumber="1", start=body)

    async def closed(self) -> int | None:
        """Wait for the gateway to close; the code."""
        async with asyncio.timeout(40):
            await self.socket.wait_closed()
        return self.socket.close_code


@asynccontextmanager
async def raw_line(dial: Dial, answer: Answer, extra: dict[str, str] | None = None) -> AsyncGenerator[RawLine]:
    """Connect where the TwiML says, with some `extra` headers, and without a word yet."""
    headers = {**dial.signature(answer.stream_url, {}), **(extra or {})}
    url = dial.reachable(answer.stream_url)
    async with connect(url, additional_headers=headers, compression=None, ping_interval=None) as socket:
        yield RawLine(socket, dial, answer)
