"""What callers do again and again in end-to-end tests, and how much of an answer reached their ear."""

from __future__ import annotations

from demo.caller import SoftwareCaller
from tests.phone_rig import Agent, Frame, spoken

PAUSE_MS = 40
"""A silence this long in what was heard lies between two words: the simulated voice is silent at a space for 60 ms."""
_BYTES_PER_MS = 8


async def take_turn(agent: Agent, caller: SoftwareCaller, text: str) -> Frame:
    """The caller says something; the `turn.end` it leads to. What is understood is up to the script of the rig."""
    caller.say(spoken(text))
    return await agent.wait("turn.end")


def words_heard(caller: SoftwareCaller, since: float) -> int:
    """How many words of the simulated voice reached the caller's ear, the last perhaps in part."""
    began = caller.moments[0].at
    heard = caller.heard[int((since - began) * 8000) :]
    words, quiet = 0, PAUSE_MS * _BYTES_PER_MS
    for sample in heard:
        if sample | 0x80 == 0xFF:
            quiet += 1
            continue
        words += quiet >= PAUSE_MS * _BYTES_PER_MS
        quiet = 0
    return words


def of_message(agent: Agent, message_id: str) -> list[str]:
    """The events about one message of the bot, in order, runs of `bot.word` as one."""
    events: list[str] = []
    for frame in agent.frames:
        if frame.get("message_id") == message_id and not (events[-1:] == ["bot.word"] == [frame["event"]]):
            events.append(frame["event"])
    return events


async def record(agent: Agent, caller: SoftwareCaller) -> list[Frame]:
    """Hang up; what `call.ended` says was said."""
    await caller.hang_up()
    return (await agent.wait("call.ended"))["messages"]
