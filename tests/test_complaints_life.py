"""What users of voice frameworks complain of about the life of calls: docs/complaints.md, numbers 35 to 40."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from demo.caller import SoftwareCaller
from demo.dialling import Dial, Outcome, place_call
from pipelines.call import Call
from tests.call_facts import GREETING, LONG, ended, ended_already, raw_line
from tests.call_facts import faultless as faultless
from tests.call_scenes import take_turn
from tests.phone_rig import NUMBER, Agent, Rig, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import CalledTool, Reply, Request
from tests.virtual_time import event_loop_policy as event_loop_policy

LLM = "openai:gpt-test"
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "end_call", "parameters": {"type": "object"}}}


class Moody:
    """A model that talks, or runs a tool instead."""

    def __init__(self) -> None:
        self.wants_tool = False

    def __call__(self, request: Request) -> Reply:
        if self.wants_tool:
            return Reply("One moment.", [CalledTool("end_call", "{}", "call_1")])
        return Reply(LONG, token_delay=0.05)


# --- 35 ---


@pytest.mark.usefixtures("faultless")
async def test_of_many_callers_at_the_same_moment_exactly_as_many_as_allowed_get_through() -> None:
    async with running(max_concurrent_calls=7) as rig:
        agent = await rig.agent()
        for _ in range(2):
            callers = [await rig.caller() for _ in range(20)]
            answers = await asyncio.gather(*(caller.ring() for caller in callers))
            assert Counter(answer.outcome for answer in answers) == {Outcome.CONNECTED: 7, Outcome.REJECTED: 13}
            await asyncio.sleep(1)
            assert len(rig.gateway.calls) == 7
            for caller in callers:
                await caller.hang_up()
            await asyncio.sleep(3)
        assert agent.count("call.started") == agent.count("call.ended") == 14


# --- 36 ---

LEAVINGS = ("hangs up", "vanishes", "hangs up on the bot", "vanishes while a tool runs", "is hung up on", "in mid-word")


async def short_call(rig: Rig, agent: Agent, model: Moody, leaving: str) -> None:
    """A call that ends in that way; nothing of it is kept by the test."""
    model.wants_tool = "tool" in leaving
    async with SoftwareCaller(Dial(rig.http, NUMBER, "+15550100199")) as caller:
        await caller.ring()
        call = (await agent.wait("call.started"))["call_id"]
        caller.say(spoken("hello"))
        match leaving:
            case "in mid-word":
                await agent.wait("speech.started")
            case "vanishes while a tool runs":
                await agent.wait("llm.tool_call")
            case _:
                await agent.wait("bot.word")
        if leaving == "is hung up on":
            await agent.send("call.hangup", call_id=call)
        elif "vanishes" in leaving:
            caller.vanish()
        else:
            await caller.hang_up()
        await agent.wait("call.ended")
        await caller.wait_ended(5)
    await asyncio.sleep(3)
    agent.forget()
    for kept in (rig.vendors.flux.connections, rig.vendors.voice.connections, rig.vendors.model.requests):
        kept.clear()


def tasks() -> Counter[str]:
    return Counter(str(task.get_coro()).split(" at 0x")[0] for task in asyncio.all_tasks())


@pytest.mark.usefixtures("faultless")
async def test_twenty_calls_that_end_in_every_way_leave_no_task_behind() -> None:
    model = Moody()
    async with running([Say("hello")], model=model) as rig:
        agent = await rig.agent(llm=LLM, tools=[TOOL])
        await short_call(rig, agent, model, "hangs up")
        before = tasks()
        for _, leaving in zip(range(20), cycle(LEAVINGS), strict=False):
            await short_call(rig, agent, model, leaving)
            assert not any(rig.leftovers().values()), f"after one that {leaving}"
        assert tasks() - before == Counter()


def memory_mb() -> float:
    """What this process has in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def greeted(rig: Rig, agent: Agent, calls: int) -> None:
    """So many calls, one after the other, whose callers hear a word and hang up; nothing is kept by the test."""
    for _ in range(calls):
        async with SoftwareCaller(Dial(rig.http, NUMBER, "+15550100199")) as caller:
            await caller.ring()
            await agent.wait("bot.word")
        await agent.wait("call.ended")
        agent.forget()
        for kept in (rig.vendors.flux.connections, rig.vendors.voice.connections, rig.vendors.model.requests):
            kept.clear()
    await asyncio.sleep(60)
    gc.collect()


async def test_memory_does_not_grow_with_the_number_of_calls() -> None:
    async with running() as rig:
        agent = await rig.agent(greeting=GREETING, llm=LLM)
        await greeted(rig, agent, 20)
        objects, megabytes = len(gc.get_objects()), memory_mb()
        await greeted(rig, agent, 200)
        assert not [one for one in gc.get_objects() if type(one) is Call]
        assert len(gc.get_objects()) - objects < 2000
        assert memory_mb() - megabytes < 20


# --- 37 ---


@pytest.mark.parametrize("stuck", ["half closed", "reads nothing"])
@pytest.mark.usefixtures("faultless")
async def test_a_gateway_that_stops_does_not_wait_for_a_line_that_is_stuck(stuck: str) -> None:
    async with running() as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        async with raw_line(dial, await place_call(dial)) as line:
            await line.start()
            await agent.wait("call.started")
            await agent.say(dial.call_sid, LONG, "m1")
            await agent.wait("bot.speaking")
            if stuck == "half closed":
                line.socket.transport.write_eof()
            else:
                line.socket.transport.pause_reading()
            loop = asyncio.get_running_loop()
            began = loop.time()
            await rig.gateway.stop()
            assert loop.time() - began < 3
            assert agent.count("call.ended") == 1
            line.socket.transport.abort()


@pytest.mark.usefixtures("faultless")
async def test_a_half_closed_line_is_the_end_of_the_call() -> None:
    async with running() as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        async with raw_line(dial, await place_call(dial)) as line:
            await line.start()
            started = await agent.wait("call.started")
            line.socket.transport.write_eof()
            over = await agent.wait("call.ended")
            assert over["ts"] - started["ts"] < 1
            await line.closed()
        await ended_already(agent, dial.call_sid)


# --- 39 ---


@pytest.mark.parametrize("after_ms", [0, 1, 5, 20, 100])
async def test_what_an_agent_does_to_a_call_as_it_ends_is_no_error(
    after_ms: int, faultless: list[dict[str, object]]
) -> None:
    commands = ("call.mute", "call.unmute", "call.hold", "call.unhold", "bot.cancel", "bot.clear", "history.get")
    async with running() as rig:
        agent = await rig.agent(llm=LLM)
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        await agent.wait("bot.word")
        leaving = asyncio.create_task(caller.hang_up())
        await asyncio.sleep(after_ms / 1000)
        await agent.say(call, GREETING, "m2")
        for command in commands:
            await agent.send(command, call_id=call)
        await agent.send("call.hangup", call_id=call)
        await agent.send("session.configure", session_id=call, voice="elevenlabs:voice-1")
        await leaving
        await ended(agent, call)
        assert agent.count("error") == 0
        assert not [entry for entry in faultless if entry["log_level"] == "warning"]


# --- 40 ---


@pytest.mark.usefixtures("faultless")
async def test_a_call_that_the_model_ends_is_over_for_the_caller_too() -> None:
    model = Moody()
    model.wants_tool = True
    async with running([Say("goodbye")], model=model) as rig:
        agent = await rig.agent(llm=LLM, tools=[TOOL])
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "goodbye")
        asked = await agent.wait("llm.tool_call")
        await agent.wait("bot.finished")
        await agent.send("call.hangup", call_id=call, reason="said goodbye")
        results = [{"tool_call_id": "call_1", "result": "done"}]
        await agent.send("llm.tool_result", call_id=call, msg_id=asked["msg_id"], results=results)
        await caller.wait_ended(1)
        assert caller.moments[-1].detail == "gateway"
        assert (await ended(agent, call))["reason"] == "said goodbye"
        assert len(rig.vendors.model.chats) == 1
        assert not any(rig.leftovers().values())


@pytest.mark.usefixtures("faultless")
async def test_a_caller_is_let_go_although_the_carrier_does_not_answer_the_close() -> None:
    async with running() as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        async with raw_line(dial, await place_call(dial)) as line:
            await line.start()
            await agent.wait("call.started")
            line.socket.transport.pause_reading()
            await agent.send("call.hangup", call_id=dial.call_sid)
            await agent.wait("call.ended")
            await asyncio.sleep(3)
            assert not any(rig.leftovers().values())
            line.socket.transport.resume_reading()
            await line.closed()
