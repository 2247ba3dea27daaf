"""What users of voice frameworks complain of about vendors that fail: docs/complaints.md, numbers 19 to 23."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.call_facts import loop_time
from tests.call_scenes import of_message, record, take_turn, words_heard
from tests.phone_rig import names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.elevenlabs import Faults
from tests.simulators.openai import CalledTool, Reply, Request
from tests.virtual_time import event_loop_policy as event_loop_policy

LLM = "openai:gpt-test"
WHOLE = ["bot.speaking", "bot.word", "message.confirmed", "bot.finished"]
PATIENT: dict[str, Any] = {"session_limits": {"idle_timeout_seconds": 0, "max_duration_seconds": 0}}


# --- 19 ---


@pytest.mark.parametrize("quiet_s", [60, 330])
async def test_a_voice_whose_socket_died_while_nobody_spoke_is_heard_again_at_once(quiet_s: float) -> None:
    async with running() as rig:
        agent = await rig.agent(**PATIENT)
        caller, call = await rig.call(agent)
        await agent.say(call, "Hello there.", "m1")
        await agent.wait("bot.finished", message_id="m1")
        rig.vendors.voice.drop()
        await asyncio.sleep(quiet_s)
        asked = asyncio.get_running_loop().time()
        await agent.say(call, "Are you still there?", "m2")
        speaking = await agent.wait("bot.speaking", message_id="m2")
        assert loop_time(rig, speaking) - asked < 0.5
        await agent.wait("bot.finished", message_id="m2")
        assert of_message(agent, "m2") == WHOLE
        assert words_heard(caller, asked) == 4
        assert agent.count("error") == 0


async def test_a_voice_that_cannot_be_reached_while_nobody_speaks_is_not_called_without_end() -> None:
    async with running() as rig:
        agent = await rig.agent(**PATIENT)
        _, call = await rig.call(agent)
        await agent.say(call, "Hello there.", "m1")
        await agent.wait("bot.finished", message_id="m1")
        rig.vendors.voice.faults = lambda _: Faults(handshake_status=503)
        rig.vendors.voice.drop()
        before = rig.vendors.voice.attempts
        await asyncio.sleep(600)
        assert rig.vendors.voice.attempts - before <= 10
        assert names(agent.of_call(call))[-1] == "bot.finished"
        rig.vendors.voice.faults = lambda _: Faults()
        await agent.say(call, "Are you still there?", "m2")
        await agent.wait("bot.finished", message_id="m2")
        assert of_message(agent, "m2") == WHOLE


# --- 22 ---


async def test_a_turn_of_tools_alone_is_no_failure_of_the_model() -> None:
    function = {"name": "note", "parameters": {"type": "object"}}
    tool: dict[str, Any] = {"type": "function", "function": function, "no_followup": True}
    replies = [Reply(tools=[CalledTool("note", "{}", "call_1")]), Reply("Goodbye.")]
    async with running([Say("please note that"), Say("that is all")], model=replies) as rig:
        agent = await rig.agent(llm=LLM, tools=[tool])
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "please note that")
        asked = await agent.wait("llm.tool_call")
        results = [{"tool_call_id": "call_1", "result": "noted"}]
        await agent.send("llm.tool_result", call_id=call, msg_id=asked["msg_id"], results=results)
        await asyncio.sleep(5)
        assert not {"llm.error", "error", "bot.speaking"} & set(names(agent.of_call(call)))
        assert len(rig.vendors.model.chats) == 1
        await take_turn(agent, caller, "that is all")
        assert (await agent.wait("bot.finished"))["text"] == "Goodbye."


# --- 23 ---

DRIBBLE = "well let me see whether there is still a table somewhere"


async def test_a_model_that_dribbles_without_an_end_of_a_sentence_is_heard_early_and_whole() -> None:
    async with running([Say("is there a table")], model=[Reply(DRIBBLE, token_delay=0.8)]) as rig:
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        end = await take_turn(agent, caller, "is there a table")
        speaking = await agent.wait("bot.speaking")
        assert loop_time(rig, speaking) - loop_time(rig, end) < 4
        finished = await agent.wait("bot.finished")
        assert finished["text"] == DRIBBLE
        assert loop_time(rig, finished) - loop_time(rig, end) > 7
        assert words_heard(caller, loop_time(rig, end)) == len(DRIBBLE.split())
        said = [entry["content"] for entry in await record(agent, caller)]
        assert said == ["is there a table", DRIBBLE]


async def test_an_agent_that_dribbles_its_own_stream_is_heard_early_too() -> None:
    async with running([Say("is there a table")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "is there a table")
        stream = {"call_id": call, "message_id": "s1"}
        await agent.send("bot.reply.stream", **stream, action="start", in_reply_to=end["message_id"])
        for word in DRIBBLE.split():
            await agent.send("bot.reply.stream", **stream, action="chunk", token=f"{word} ")
            await asyncio.sleep(0.6)
        await agent.send("bot.reply.stream", **stream, action="end")
        finished = await agent.wait("bot.finished")
        speaking = next(frame for frame in agent.frames if frame["event"] == "bot.speaking")
        assert loop_time(rig, speaking) - loop_time(rig, end) < 3
        assert finished["text"].strip() == DRIBBLE


async def test_a_caller_who_asks_whether_somebody_is_there_does_not_lose_the_question() -> None:
    """Each "hello?" begins the answer again; when the caller waits, it is one to everything that was said."""

    def model(request: Request) -> Reply:
        return Reply(f"You said {request.last_user_text}.", first_token_delay=2.5)

    async with running([Say("is there a table"), Say("hello"), Say("anybody there")], model=model) as rig:
        agent = await rig.agent(llm=LLM)
        caller, call = await rig.call(agent)
        for text in ("is there a table", "hello", "anybody there"):
            await take_turn(agent, caller, text)
            await asyncio.sleep(0.8)
        assert (await agent.wait("bot.finished"))["text"] == "You said is there a table hello anybody there."
        assert names(agent.of_call(call)).count("bot.speaking") == 1
        caller.say(spoken("thanks"))
