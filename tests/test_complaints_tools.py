"""What users of voice frameworks complain of about tools: docs/complaints.md, numbers 24 to 27."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.call_facts import loop_time
from tests.call_scenes import record, take_turn
from tests.phone_rig import Agent, Frame, names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import CalledTool, Reply, Request
from tests.virtual_time import event_loop_policy as event_loop_policy

TOOL = {"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}
BOOKING: dict[str, Any] = {"llm": "openai:gpt-test", "tools": [TOOL]}
FILLER = "One moment please, I am still looking for it in the big book of tables."


def books(request: Request) -> Reply:
    """Books once, and then reads out what became of it."""
    known = [entry["content"] for entry in request.body["messages"] if entry["role"] == "tool"]
    return Reply(f"It is {known[0]}.") if known else Reply(tools=[CalledTool("book", "{}", "call_1")])


async def give(agent: Agent, call: str, asked: Frame, result: str) -> None:
    results = [{"tool_call_id": "call_1", "result": result}]
    await agent.send("llm.tool_result", call_id=call, msg_id=asked["msg_id"], results=results)


# --- 24, 26 ---


@pytest.mark.parametrize("result_comes", ["before the words", "after the words"])
async def test_interrupting_what_is_said_inside_a_tool_neither_runs_it_twice_nor_wedges_the_call(
    result_comes: str,
) -> None:
    script = [Say("book a table"), Say("hurry up please"), Say("thank you very much")]
    async with running(script, model=books) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "book a table")
        asked = await agent.wait("llm.tool_call")
        await agent.say(call, FILLER, "filler")
        await agent.wait("bot.speaking", message_id="filler")
        await asyncio.sleep(2.5)
        caller.say(spoken("hurry up please"))
        await agent.wait("bot.interrupted", message_id="filler")
        if result_comes == "before the words":
            await give(agent, call, asked, "booked")
        await agent.wait("turn.end")
        if result_comes == "after the words":
            await asyncio.sleep(1)
            await give(agent, call, asked, "booked")
        assert (await agent.wait("bot.finished"))["text"] == "It is booked."
        await take_turn(agent, caller, "thank you very much")
        await agent.wait("bot.finished")
        assert agent.count("llm.tool_call") == 1
        results = [entry["content"] for entry in await record(agent, caller) if entry["role"] == "tool"]
        assert results == ["booked"]


# --- 25 ---


async def test_a_result_that_comes_while_the_caller_speaks_over_a_filler_is_answered() -> None:
    async with running([Say("book a table"), Say("a table for two on friday at eight")], model=books) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "book a table")
        asked = await agent.wait("llm.tool_call")
        await agent.say(call, FILLER, "filler")
        await agent.wait("bot.speaking", message_id="filler")
        await asyncio.sleep(0.7)
        caller.say(spoken("a table for two on friday at eight"))
        await agent.wait("user.speaking")
        await give(agent, call, asked, "booked")
        await agent.wait("turn.end")
        assert (await agent.wait("bot.finished"))["text"] == "It is booked."
        assert agent.count("llm.tool_call") == 1


# --- 27 ---


async def test_a_filler_is_heard_while_the_tool_runs_and_the_answer_after_it() -> None:
    async with running([Say("book a table")], model=books) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "book a table")
        asked = await agent.wait("llm.tool_call")
        await agent.say(call, "One moment please.", "filler", end["message_id"])
        filler = await agent.wait("bot.speaking", message_id="filler")
        assert loop_time(rig, filler) - loop_time(rig, asked) < 0.3
        await agent.wait("bot.finished", message_id="filler")
        await asyncio.sleep(8)
        await give(agent, call, asked, "booked")
        answer = await agent.wait("bot.finished")
        assert answer["text"] == "It is booked."
        assert names(agent.of_call(call)).count("bot.speaking") == 2


async def test_fillers_do_not_disarm_the_time_limit_of_a_tool() -> None:
    async with running([Say("book a table")], model=books) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "book a table")
        asked = await agent.wait("llm.tool_call")
        for number in range(5):
            await agent.say(call, "One moment please.", f"filler{number}")
            await asyncio.sleep(5)
        answer = await agent.wait("bot.finished", text='It is {"error":"tool timeout"}.')
        assert 30 <= loop_time(rig, answer) - loop_time(rig, asked) < 34
