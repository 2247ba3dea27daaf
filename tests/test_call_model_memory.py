"""The agent's grip on what the server's model knows, on a whole call: prompt, variables, context, history."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from tests.call_scenes import take_turn
from tests.phone_rig import Agent, Frame, Rig, running
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import Reply, Request
from tests.virtual_time import event_loop_policy as event_loop_policy

LLM = "openai:gpt-test"


def echo(request: Request) -> Reply:
    return Reply(f"You said {request.last_user_text}.")


async def ask(agent: Agent, call: str, command: str, **fields: object) -> Frame:
    """One history command and its answer."""
    answer = "history.data" if command == "get" else "history.updated"
    return await agent.ask(f"history.{command}", answer, call_id=call, **fields)


def prompts(rig: Rig) -> list[str]:
    """The system message of every request so far."""
    return [body["messages"][0]["content"] for body in rig.vendors.model.chats]


@pytest.mark.proves("ws-31", "row-55", "row-56", "row-58", "row-59")
async def test_variables_set_when_the_call_starts_are_in_the_very_first_request() -> None:
    async with running([Say("hello"), Say("again")], model=echo) as rig:
        agent = await rig.agent(llm=LLM, prompt="Hi {{name}}, it is {{date}}.")
        caller, call = await rig.call(agent)
        done = await ask(agent, call, "set_vars", vars={"name": "Ana"}, request_id="rq_1")
        assert (done["request_id"], done["count"], done["agent_id"], done["call_id"]) == ("rq_1", 0, "mara", call)
        assert "error" not in done
        await ask(agent, call, "add_context", text="Ana likes windows.")
        await ask(agent, call, "add_context", text="Ana hates noise.")
        await take_turn(agent, caller, "hello")
        await agent.wait("bot.finished")
        today = datetime.fromtimestamp(rig.gateway.clock.wall(), UTC).strftime("%Y-%m-%d")
        first = f"Hi Ana, it is {today}.\n\nAna likes windows.\n\nAna hates noise."
        assert prompts(rig) == [first]
        data = await ask(agent, call, "get", request_id="rq_2")
        assert data["request_id"] == "rq_2"
        assert [entry["role"] for entry in data["messages"]] == ["system", "user", "assistant"]
        assert data["messages"][0]["content"] == first
        await ask(agent, call, "set_instructions", prompt="Bye {{name}}.")
        await take_turn(agent, caller, "again")
        await agent.wait("bot.finished")
        assert prompts(rig)[-1] == "Bye Ana.\n\nAna likes windows.\n\nAna hates noise."


@pytest.mark.proves("row-57")
async def test_the_time_in_the_prompt_is_that_of_each_request() -> None:
    async with running([Say("hello"), Say("again")], model=echo) as rig:
        limits = {"idle_timeout_seconds": 0}
        agent = await rig.agent(llm=LLM, prompt="{{date}} {{time}}", timezone="Asia/Tokyo", session_limits=limits)
        caller, _ = await rig.call(agent)
        for text in ("hello", "again"):
            await take_turn(agent, caller, text)
            await agent.wait("bot.finished")
            await asyncio.sleep(65)
        first, second = prompts(rig)
        assert first != second
        eager = [frame["ts"] for frame in agent.frames if frame["event"] == "eager.turn"]
        for prompt, asked in zip((first, second), eager, strict=True):
            moments = {datetime.fromtimestamp(asked + later, ZoneInfo("Asia/Tokyo")) for later in (0, 0.1)}
            assert prompt in {f"{moment:%Y-%m-%d %H:%M}" for moment in moments}


@pytest.mark.proves("row-60", "row-61")
async def test_history_can_be_read_added_to_replaced_and_emptied_and_the_prompt_survives() -> None:
    async with running([Say("hello")], model=echo) as rig:
        agent = await rig.agent(llm=LLM, prompt="Be kind.")
        caller, call = await rig.call(agent)
        add = [{"role": "user", "content": "I am Ana."}, {"role": "assistant", "content": "Hello Ana."}]
        assert (await ask(agent, call, "add", messages=add))["count"] == 2
        assert (await ask(agent, call, "set", messages=add[:1]))["count"] == 1
        assert (await ask(agent, call, "clear"))["count"] == 0
        assert (await ask(agent, call, "add", messages=add))["count"] == 2
        await take_turn(agent, caller, "hello")
        await agent.wait("bot.finished")
        [request] = rig.vendors.model.chats
        told = [(entry["role"], entry["content"]) for entry in request["messages"]]
        assert told == [
            ("system", "Be kind."),
            ("user", "I am Ana."),
            ("assistant", "Hello Ana."),
            ("user", "hello"),
        ]


@pytest.mark.proves("ws-32")
async def test_commands_sent_in_one_breath_are_answered_in_their_order() -> None:
    async with running(model=echo) as rig:
        agent = await rig.agent(llm=LLM, prompt="Be kind.")
        _, call = await rig.call(agent)
        for number in range(3):
            message = [{"role": "user", "content": str(number)}]
            await agent.send("history.add", call_id=call, messages=message, request_id=f"rq_{number}")
        await agent.send("history.get", call_id=call, request_id="rq_3")
        for number in range(3):
            done = await agent.wait("history.updated")
            assert (done["request_id"], done["count"]) == (f"rq_{number}", number + 1)
        assert (await agent.wait("history.data"))["request_id"] == "rq_3"


@pytest.mark.proves("ws-32")
@pytest.mark.parametrize("command", ["add", "set", "clear", "set_instructions", "set_vars", "add_context"])
async def test_a_call_without_a_model_on_the_server_answers_all_the_same(command: str) -> None:
    fields: dict[str, object] = {"messages": [], "prompt": "x", "vars": {}, "text": "x"}
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        done = await ask(agent, call, command, **fields, request_id="rq_1")
        assert (done["count"], done["error"], done["request_id"]) == (0, "no_server_llm", "rq_1")


async def test_a_turn_that_ends_right_behind_a_command_sees_what_it_changed() -> None:
    async with running([Say("hello")], model=echo) as rig:
        agent = await rig.agent(llm=LLM, prompt="Old.")
        caller, call = await rig.call(agent)
        before = asyncio.create_task(agent.wait("user.speaking"))
        turn = asyncio.create_task(take_turn(agent, caller, "hello"))
        await before
        await agent.send("history.set_instructions", call_id=call, prompt="New.")
        await turn
        await agent.wait("bot.finished")
        assert prompts(rig) == ["New."]


async def test_the_messages_of_an_earlier_call_can_be_fed_back_without_repeating_the_prompt() -> None:
    async with running([Say("hello")], model=echo) as rig:
        agent = await rig.agent(llm=LLM, prompt="Be kind to {{name}}.", vars={"name": "Ana"})
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        await agent.wait("bot.finished")
        await caller.hang_up()
        earlier = (await agent.wait("call.ended"))["messages"]
        assert earlier[0]["content"] == "Be kind to Ana."
        _, call = await rig.call(agent)
        assert (await ask(agent, call, "set", messages=earlier))["count"] == 2
        data = await ask(agent, call, "get")
        assert [entry["role"] for entry in data["messages"]] == ["system", "user", "assistant"]
