"""What tests of whole calls ask about the frames an agent got and the sound a caller heard."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

import httpx2
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect

from demo.caller import Happening, SoftwareCaller
from demo.dialling import Answer, Dial, Outcome
from demo.telephone import RATE, first_audible
from tests.phone_rig import NUMBER, Agent, Frame, Rig, names

GREETING = "Hello there. How can I help you?"
LONG = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen."
"""About six seconds of speech."""
TABLE = "a table for two please"


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


async def settled(agent: Agent, seconds: float = 1.0) -> None:
    """All that was sent is carried out, and what might follow from it has come."""
    await agent.ask("ping", "pong")
    await asyncio.sleep(seconds)


def lawful(frames: list[Frame]) -> None:
    """The laws of order that every finished call keeps (protocol §3.1)."""
    told = names(frames)
    assert told[0] == "call.started"
    assert told[-1] == "call.ended"
    assert told.count("call.started") == told.count("call.ended") == 1
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    assert len({frame["agent_id"] for frame in frames}) == 1
    assert {frame["session_id"] for frame in frames} == {frames[0]["call_id"]}
    spoken_ids = [frame["message_id"] for frame in frames if frame["event"] == "bot.speaking"]
    over = [frame["message_id"] for frame in frames if frame["event"] in ("bot.finished", "bot.interrupted")]
    assert len(over) == len(set(over))
    assert set(spoken_ids) <= set(over)


async def ended(agent: Agent, call_id: str, patience: float = 20.0) -> Frame:
    """The end of a call; 5 s later still nothing has followed it."""
    frame = await agent.wait("call.ended", patience, call_id=call_id)
    await asyncio.sleep(5)
    lawful(agent.of_call(call_id))
    return frame


async def ended_already(agent: Agent, call_id: str) -> None:
    await asyncio.sleep(5)
    lawful(agent.of_call(call_id))


async def talk(agent: Agent, caller: SoftwareCaller, message_id: str = "m1") -> None:
    """A short call, proven to be whole."""
    assert (await caller.ring()).outcome is Outcome.CONNECTED
    call = caller.dial.call_sid
    await agent.told(call, "call.started")
    await agent.say(call, GREETING, message_id)
    await caller.wait_bot_done()
    await caller.hang_up()
    await agent.told(call, "call.ended")
    assert story(agent.of_call(call)) == ["call.started", *SPOKEN, "call.ended"]
    assert caller.heard_ms == pytest.approx(len(GREETING) * 60, abs=80)


async def webhook(rig: Rig, form: dict[str, str], **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as http:
        return await http.post(f"{rig.http}/twilio/voice", data=form, headers=headers)


def form(**fields: str) -> dict[str, str]:
    return {"CallSid": "CA" + "7" * 32, "From": "+15550100199", "To": NUMBER, **fields}
