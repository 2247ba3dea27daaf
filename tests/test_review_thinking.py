"""The model and its tools when settings, words or agents change under them."""

from __future__ import annotations

import asyncio

from tests.call_scenes import take_turn
from tests.phone_rig import names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import Reply, Request
from tests.test_call_tools import BOOKING, FIND, give, results, with_results
from tests.virtual_time import event_loop_policy as event_loop_policy


def echo(request: Request) -> Reply:
    return Reply(f"You said {request.last_user_text}.")


async def test_the_model_can_be_switched_off_while_a_tool_runs() -> None:
    async with running([Say("find my booking")], model=with_results(FIND)) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "find my booking")
        asked = await agent.wait("llm.tool_call")
        await agent.ask("session.configure", "session.configured", session_id=call, llm={"enabled": False})
        await give(agent, call, asked, call_1="yes")
        await asyncio.sleep(3)
        assert agent.count("call.ended") == 0


async def test_the_model_can_be_switched_off_between_eager_and_end() -> None:
    async with running([Say("hello")], model=echo) as rig:
        agent = await rig.agent(llm="openai:gpt-test", session_limits={"idle_timeout_seconds": 20})
        caller, call = await rig.call(agent)
        caller.say(spoken("hello"))
        await agent.wait("eager.turn")
        await agent.ask("session.configure", "session.configured", session_id=call, llm={"enabled": False})
        await agent.wait("turn.end")
        await agent.wait("session.timeout", patience=100)


async def test_words_added_while_a_tool_runs_come_after_it_in_the_models_memory() -> None:
    def model(request: Request) -> Reply:
        return Reply("Done.") if results(request) else Reply("", [FIND])

    async with running([Say("find my booking"), Say("for friday not monday")], model=model) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "find my booking")
        asked = await agent.wait("llm.tool_call")
        caller.say(spoken("for friday not monday"))
        await agent.wait("turn.end")
        await give(agent, call, asked, call_1="monday")
        await agent.wait("bot.finished")
        told = [(m["role"], m.get("content")) for m in rig.vendors.model.requests[-1].body["messages"]]
        assert told[-1][0] == "user", told


async def test_a_tool_whose_agent_dropped_is_asked_for_again() -> None:
    async with running([Say("find my booking")], model=with_results(FIND)) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "find my booking")
        asked = await agent.wait("llm.tool_call")
        agent.drop()
        await asyncio.sleep(2)
        back = await rig.agent(**BOOKING)
        again = await back.told(call, "llm.tool_call")
        assert again["msg_id"] != asked["msg_id"]
        assert again["tool_calls"] == asked["tool_calls"]
        assert names(back.of_call(call))[:2] == ["call.started", "llm.tool_call"]
        await give(back, call, asked, call_1="yes")
        assert (await back.told(call, "bot.finished"))["text"] == "yes."


async def test_a_tool_asked_for_while_the_agent_was_away_is_not_lost() -> None:
    async with running([Say("find my booking")], model=with_results(FIND)) as rig:
        agent = await rig.agent(**BOOKING)
        caller, call = await rig.call(agent)
        agent.drop()
        caller.say(spoken("find my booking"))
        await asyncio.sleep(8)
        back = await rig.agent(**BOOKING)
        asked = await back.told(call, "llm.tool_call")
        await give(back, call, asked, call_1="yes")
        assert (await back.told(call, "bot.finished"))["text"] == "yes."


async def test_a_forgettable_result_is_not_forgotten_before_it_was_used() -> None:
    tools = [{**tool, "ephemeral": True} for tool in BOOKING["tools"]]
    async with running([Say("find my booking"), Say("hello are you there")], model=with_results(FIND)) as rig:
        agent = await rig.agent(llm=BOOKING["llm"], tools=tools)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "find my booking")
        asked = await agent.wait("llm.tool_call")
        await take_turn(agent, caller, "hello are you there")
        await give(agent, call, asked, call_1="yes")
        await asyncio.sleep(3)
        assert agent.count("llm.tool_call") == 1
