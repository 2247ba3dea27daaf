"""What users of voice frameworks complain of about turns and transcripts: docs/complaints.md, numbers 12 to 18."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.call_facts import faultless as faultless
from tests.call_scenes import record, take_turn
from tests.phone_rig import names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.deepgram_nova import Line, NovaSimulator
from tests.simulators.openai import CalledTool, Reply, Request
from tests.speech import noise_mulaw, say_mulaw, silence_mulaw
from tests.virtual_time import event_loop_policy as event_loop_policy

LLM = "openai:gpt-test"
BREATH = silence_mulaw(150) + noise_mulaw(100, level_db=-20.0) + silence_mulaw(1500)
"""After words: the turn seems over, a breath, and then it is."""
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def echo(request: Request) -> Reply:
    return Reply(f"You said {request.last_user_text}.", token_delay=0.1)


# --- 13 ---


async def test_several_finals_of_one_breath_are_one_turn_with_one_text_and_one_answer() -> None:
    whole = "I want a table for two on friday"
    async with (
        NovaSimulator([Line("I want | a table for two | on friday")]) as nova,
        running(deepgram_ws_url=nova.url, model=echo) as rig,
    ):
        agent = await rig.agent(stt="deepgram/nova-3", llm=LLM)
        caller, call = await rig.call(agent)
        caller.say(spoken(whole))
        assert (await agent.wait("turn.end"))["text"] == whole
        assert (await agent.wait("bot.finished"))["text"] == f"You said {whole}."
        await asyncio.sleep(5)
        told = names(agent.of_call(call))
        assert told.count("turn.end") == told.count("user.message") == told.count("bot.speaking") == 1
        assert len(rig.vendors.model.chats) == 1
        await rig.wind_up()


# --- 15 ---


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.6], ids=["at once", "slowly", "hardly begun"])
async def test_a_breath_after_an_early_answer_asks_the_model_no_second_time_and_says_nothing_twice(
    delay: float,
) -> None:
    def model(request: Request) -> Reply:
        return Reply(f"You said {request.last_user_text}.", token_delay=delay)

    async with running([Say("a table for two please"), Say("thank you")], model=model) as rig:
        agent = await rig.agent(llm=LLM)
        caller, call = await rig.call(agent)
        caller.say(say_mulaw("a table for two please") + BREATH)
        await agent.wait("turn.continued")
        await agent.wait("turn.end")
        finished = await agent.wait("bot.finished")
        assert finished["text"] == "You said a table for two please."
        assert len(rig.vendors.model.chats) == 1, "one bill"
        assert names(agent.of_call(call)).count("bot.speaking") == 1
        await take_turn(agent, caller, "thank you")
        assert (await agent.wait("bot.finished"))["text"] == "You said thank you."
        roles = [entry["role"] for entry in rig.vendors.model.chats[-1]["messages"]]
        assert roles == ["user", "assistant", "user"]
        said = [entry["content"] for entry in await record(agent, caller) if entry["role"] == "assistant"]
        assert said == ["You said a table for two please.", "You said thank you."]


async def test_a_breath_after_an_early_tool_call_loses_it_not_and_runs_it_once() -> None:
    def model(request: Request) -> Reply:
        done = any(entry["role"] == "tool" for entry in request.body["messages"])
        return Reply("Found it.") if done else Reply("One moment.", [CalledTool("find", "{}", "call_1")])

    async with running([Say("find my booking please")], model=model) as rig:
        agent = await rig.agent(llm=LLM, tools=[TOOL])
        caller, call = await rig.call(agent)
        caller.say(say_mulaw("find my booking please") + BREATH)
        asked = await agent.wait("llm.tool_call")
        results = [{"tool_call_id": "call_1", "result": "yes"}]
        await agent.send("llm.tool_result", call_id=call, msg_id=asked["msg_id"], results=results)
        await agent.wait("bot.finished", text="Found it.")
        assert agent.count("llm.tool_call") == 1
        assert len(rig.vendors.model.chats) == 2
        spoken_texts = [frame["text"] for frame in agent.frames if frame["event"] == "bot.finished"]
        assert spoken_texts == ["One moment.", "Found it."]


async def test_what_changed_meanwhile_is_asked_again_although_the_words_are_the_same() -> None:
    async with running([Say("a table for two please")], model=echo) as rig:
        agent = await rig.agent(llm=LLM, prompt="Be kind.")
        caller, call = await rig.call(agent)
        caller.say(say_mulaw("a table for two please") + BREATH)
        await agent.wait("eager.turn")
        await agent.ask("history.set_instructions", "history.updated", call_id=call, prompt="Be brief.")
        await agent.wait("bot.finished")
        assert [chat["messages"][0]["content"] for chat in rig.vendors.model.chats] == ["Be kind.", "Be brief."]


# --- 16 ---


@pytest.mark.parametrize("stt", ["deepgram-flux", "deepgram/nova-3"])
@pytest.mark.parametrize("after_ms", [0, 200, 500])
async def test_the_last_thing_said_is_in_the_record_when_the_caller_hangs_up_right_after_it(
    stt: str, after_ms: int
) -> None:
    text = "cancel my booking for tonight"
    async with NovaSimulator([Line("hello"), Line(text)]) as nova:
        other: dict[str, Any] = {} if "flux" in stt else {"deepgram_ws_url": nova.url}
        async with running([Say("hello"), Say(text)], **other) as rig:
            agent = await rig.agent(stt=stt)
            caller, call = await rig.call(agent)
            end = await take_turn(agent, caller, "hello")
            await agent.say(call, "Hi.", "m1", end["message_id"])
            await agent.wait("bot.finished")
            caller.say(say_mulaw(text) + silence_mulaw(after_ms))
            await caller.wait_said()
            said = [entry["content"] for entry in await record(agent, caller)]
            shown = [frame["text"] for frame in agent.frames if frame["event"] == "user.speaking"][-1]
            assert said[:2] == ["hello", "Hi."]
            assert said[2:] == [shown]
            assert text.startswith(shown)
            assert len(shown.split()) >= len(text.split()) - (after_ms < 300), "but for a word nobody knew yet"
            await rig.wind_up()


# --- 17 ---


async def test_a_voice_that_no_detector_heard_gives_no_latency_of_a_minute(faultless: list[dict[str, object]]) -> None:
    async with running([Say("hello", at_ms=2_000), Say("a table for two please", at_ms=62_000)], model=echo) as rig:
        agent = await rig.agent(llm=LLM, session_limits={"idle_timeout_seconds": 0})
        await rig.call(agent)
        await agent.wait("bot.finished", 10)
        await agent.wait("bot.finished", 80)
        told = [frame for frame in agent.frames if frame["event"] in ("user.message", "eager.turn", "turn.end")]
        latencies = [int(frame.get("latency_ms", frame.get("lag_ms", -1))) for frame in told]
        assert len(latencies) == 6
        assert all(0 <= latency < 2000 for latency in latencies)
        spoken_ms = [frame["duration_ms"] for frame in agent.frames if frame["event"] == "speech.ended"]
        assert all(ms < 3000 for ms in spoken_ms)
        turns = [entry for entry in faultless if entry["event"] == "turn"]
        steps = [int(str(value)) for turn in turns for name, value in turn.items() if name.endswith("_ms")]
        assert len(turns) == 2
        assert all(0 <= step < 4000 for step in steps)
