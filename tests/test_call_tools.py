"""Tools of the server's model on a whole call: asked for once, awaited for so long, never lost and never run twice."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.call_facts import loop_time
from tests.call_scenes import of_message, record, take_turn
from tests.phone_rig import Agent, Frame, names, running, spoken
from tests.simulators.deepgram_flux_engine import Ending, Say
from tests.simulators.openai import CalledTool, Reply, Request
from tests.virtual_time import event_loop_policy as event_loop_policy


def function(name: str) -> dict[str, Any]:
    """A tool as agents declare it."""
    parameters = {"type": "object", "properties": {"code": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": parameters}}


BOOKING: dict[str, Any] = {"llm": "openai:gpt-test", "tools": [function("find_booking"), function("weather")]}
FIND = CalledTool("find_booking", '{"code":"A1"}', "call_1")
WEATHER = CalledTool("weather", '{"city":"Madrid"}', "call_2")


def results(request: Request) -> dict[str, str]:
    """Tool results in a request, by the id of their call."""
    return {entry["tool_call_id"]: entry["content"] for entry in request.body["messages"] if entry["role"] == "tool"}


def with_results(*tools: CalledTool, text: str = "") -> Any:
    """A model that calls the tools once and then reads out what it knows of them."""

    def script(request: Request) -> Reply:
        known = results(request)
        return Reply(" and ".join(known.values()) + ".") if known else Reply(text, tools)

    return script


async def give(agent: Agent, call: str, asked: Frame, **values: object) -> None:
    """Answer some of the calls of a round."""
    given = [{"tool_call_id": call_id, "result": value} for call_id, value in values.items()]
    await agent.send("llm.tool_result", call_id=call, msg_id=asked["msg_id"], results=given)


@pytest.mark.proves("ws-29", "row-38", "row-40", "row-80")
@pytest.mark.parametrize("spelling", ["snake", "camel", "single"])
async def test_a_tool_is_asked_for_once_and_its_result_becomes_the_answer(spelling: str) -> None:
    async with running([Say("find my booking")], model=with_results(FIND)) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "find my booking")
        asked = await agent.wait("llm.tool_call")
        assert asked["call_id"] == call
        assert asked["tool_calls"] == [{"id": "call_1", "name": "find_booking", "arguments": '{"code":"A1"}'}]
        assert json.loads(asked["tool_calls"][0]["arguments"]) == {"code": "A1"}
        result = {"found": True}
        shapes: dict[str, dict[str, object]] = {
            "snake": {"msg_id": asked["msg_id"], "results": [{"tool_call_id": "call_1", "result": result}]},
            "camel": {"msgId": asked["msg_id"], "results": [{"toolCallId": "call_1", "output": result}]},
            "single": {"message_id": asked["msg_id"], "tool_call_id": "call_1", "result": result},
        }
        await agent.send("llm.tool_result", call_id=call, **shapes[spelling])
        finished = await agent.wait("bot.finished")
        assert finished["text"] == '{"found": true}.'
        first, second = rig.vendors.model.chats
        assert [tool["function"]["name"] for tool in first["tools"]] == ["find_booking", "weather"]
        assert [entry["role"] for entry in second["messages"]] == ["user", "assistant", "tool"]
        said = [entry["role"] for entry in await record(agent, caller)]
        assert said[-4:] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.proves("row-39")
async def test_tools_of_one_round_are_asked_together_and_answered_in_pieces_and_in_any_order() -> None:
    async with running([Say("hello")], model=with_results(FIND, WEATHER)) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        asked = await agent.wait("llm.tool_call")
        assert [tool["id"] for tool in asked["tool_calls"]] == ["call_1", "call_2"]
        await give(agent, call, asked, call_2="sunny")
        await asyncio.sleep(2)
        assert len(rig.vendors.model.chats) == 1, "one result is missing"
        await give(agent, call, asked, call_1="found", call_2="too late to change")
        assert (await agent.wait("bot.finished"))["text"] == "found and sunny."
        assert agent.count("llm.tool_call") == 1


@pytest.mark.proves("ws-29")
async def test_every_round_has_its_own_id() -> None:
    replies = [Reply(tools=[FIND]), Reply(tools=[WEATHER]), Reply("Both done.")]
    async with running([Say("hello")], model=replies) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        first = await agent.wait("llm.tool_call")
        await give(agent, call, first, call_1=1)
        second = await agent.wait("llm.tool_call")
        assert second["msg_id"] != first["msg_id"]
        await give(agent, call, first, call_2="for the wrong round")
        await give(agent, call, second, call_2=2)
        assert (await agent.wait("bot.finished"))["text"] == "Both done."
        last = rig.vendors.model.chats[-1]["messages"]
        assert [entry["content"] for entry in last if entry["role"] == "tool"] == ["1", "2"]


@pytest.mark.proves("ws-30")
async def test_a_tool_that_never_answers_is_given_up_after_half_a_minute_and_the_caller_is_answered() -> None:
    async with running([Say("hello")], model=with_results(FIND)) as rig:
        agent = await rig.agent(**BOOKING, session_limits={"idle_timeout_seconds": 20, "idle_warning_seconds": 5})
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        asked = await agent.wait("llm.tool_call")
        speaking = await agent.wait("bot.speaking", patience=40)
        assert loop_time(rig, speaking) - loop_time(rig, asked) == pytest.approx(30, abs=0.5)
        await give(agent, call, asked, call_1="late")
        assert (await agent.wait("bot.finished"))["text"] == '{"error":"tool timeout"}.'
        assert agent.count("session.idle_warning") == 0, "waiting for a tool is nobody's silence"


async def test_a_tool_nobody_declared_is_answered_without_asking_the_agent() -> None:
    unknown = CalledTool("launch_rocket", "{}", "call_9")
    async with running([Say("hello")], model=with_results(unknown)) as rig:
        agent = await rig.agent(**BOOKING)
        caller, _ = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        assert (await agent.wait("bot.finished"))["text"] == '{"error":"Unknown tool"}.'
        assert agent.count("llm.tool_call") == 0


async def test_after_eight_rounds_the_model_must_answer_in_words() -> None:
    def obsessed(request: Request) -> Reply:
        if request.body.get("tool_choice") == "none":
            return Reply("I give up.")
        return Reply(tools=[CalledTool("weather", "{}", f"call_{len(results(request))}")])

    async with running([Say("hello")], model=obsessed) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        for number in range(8):
            asked = await agent.wait("llm.tool_call")
            await give(agent, call, asked, **{f"call_{number}": "rain"})
        assert (await agent.wait("bot.finished"))["text"] == "I give up."
        assert agent.count("llm.tool_call") == 8
        assert len(rig.vendors.model.chats) == 9


async def test_what_the_model_says_before_a_tool_is_heard_while_the_tool_runs() -> None:
    async with running([Say("hello")], model=with_results(FIND, text="Let me check.")) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        asked = await agent.wait("llm.tool_call")
        first = await agent.wait("bot.finished")
        assert first["text"].strip() == "Let me check."
        await give(agent, call, asked, call_1="found")
        second = await agent.wait("bot.finished")
        assert (second["text"], second["message_id"] != first["message_id"]) == ("found.", True)
        for frame in (first, second):
            whole = ["bot.speaking", "bot.word", "message.confirmed", "bot.finished"]
            assert of_message(agent, frame["message_id"]) == whole
        roles = [entry["role"] for entry in rig.vendors.model.chats[-1]["messages"]]
        assert roles == ["user", "assistant", "tool"]


async def test_tools_wait_until_the_turn_is_certainly_over() -> None:
    async with running([Say("book a table for two", Ending.RESUMED)], model=with_results(FIND)) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "book a table for two")
        asked = await agent.wait("llm.tool_call")
        assert len(rig.vendors.model.chats) == 2, "asked at the eager turn, and again when that was taken back"
        assert agent.count("llm.tool_call") == 1
        assert loop_time(rig, asked) >= loop_time(rig, end)
        await give(agent, call, asked, call_1="found")
        assert (await agent.wait("bot.finished"))["text"] == "found."


async def test_a_caller_who_goes_on_while_a_tool_runs_loses_no_result_and_runs_nothing_twice() -> None:
    def script(request: Request) -> Reply:
        if "call_1" in results(request):
            return Reply(f"{results(request)['call_1']} for {request.last_user_text}.")
        return Reply(tools=[FIND])

    async with running([Say("find my booking"), Say("the one for tonight")], model=script) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "find my booking")
        asked = await agent.wait("llm.tool_call")
        caller.say(spoken("the one for tonight"))
        await agent.wait("turn.continued")
        await agent.wait("turn.end")
        await give(agent, call, asked, call_1="booked")
        finished = await agent.wait("bot.finished")
        assert finished["text"] == "booked for find my booking the one for tonight."
        assert agent.count("llm.tool_call") == 1
        assert agent.count("bot.speaking") == 1, "the old answer was not spoken"


async def test_interrupting_the_words_before_a_tool_keeps_its_result_for_the_next_answer() -> None:
    def script(request: Request) -> Reply:
        if "call_1" in results(request):
            return Reply(f"It is {results(request)['call_1']}.")
        return Reply("Let me look that up for you, it will only take a moment or two.", [FIND])

    async with running([Say("find my booking"), Say("hurry up please")], model=script) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "find my booking")
        asked = await agent.wait("llm.tool_call")
        await asyncio.sleep(2.2)
        caller.say(spoken("hurry up please"))
        await agent.wait("bot.interrupted")
        await give(agent, call, asked, call_1="booked")
        await agent.wait("turn.end")
        assert (await agent.wait("bot.finished"))["text"] == "It is booked."
        assert agent.count("llm.tool_call") == 1
        last = rig.vendors.model.chats[-1]["messages"]
        assert [entry["content"] for entry in last if entry["role"] == "tool"] == ["booked"]


async def test_a_result_that_comes_while_the_caller_speaks_is_not_lost() -> None:
    async with running([Say("hello"), Say("are you still there")], model=with_results(FIND)) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        asked = await agent.wait("llm.tool_call")
        caller.say(spoken("are you still there"))
        await agent.wait("user.speaking")
        await give(agent, call, asked, call_1="found")
        await agent.wait("turn.end")
        assert (await agent.wait("bot.finished"))["text"] == "found."
        assert agent.count("llm.tool_call") == 1


async def test_hanging_up_while_a_tool_runs_ends_the_call_at_once_and_the_late_result_is_ignored() -> None:
    async with running([Say("hello")], model=with_results(FIND)) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        asked = await agent.wait("llm.tool_call")
        said = await record(agent, caller)
        assert [entry["role"] for entry in said][-1] in ("user", "tool")
        await give(agent, call, asked, call_1="found")
        await asyncio.sleep(2)
        assert names(agent.of_call(call))[-1] == "call.ended"
        assert len(rig.vendors.model.chats) == 1
