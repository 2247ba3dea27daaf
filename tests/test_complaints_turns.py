"""What users of voice frameworks complain of about turns and transcripts: docs/complaints.md, numbers 12 to 18."""

from __future__ import annotations

import pytest

from tests.call_scenes import record, take_turn
from tests.phone_rig import names, running
from tests.simulators.deepgram_flux_engine import Say
from tests.simulators.openai import CalledTool, Reply, Request
from tests.speech import noise_mulaw, say_mulaw, silence_mulaw
from tests.virtual_time import event_loop_policy as event_loop_policy

LLM = "openai:gpt-test"
BREATH = silence_mulaw(150) + noise_mulaw(100, level_db=-20.0) + silence_mulaw(1500)
"""After words: the turn seems over, a breath, and then it is."""
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def echo(request: Request) -> Reply:
    return Reply(f"You said {request.last_user_text}.", token_delay=0.1)


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
