"""The server's own language model answers a call, end to end: when it is asked, with what, and what is heard of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from demo.caller import Happening
from tests.call_facts import about, loop_time, moments
from tests.call_scenes import of_message, record, take_turn, words_heard
from tests.phone_rig import Agent, Frame, names, running, spoken
from tests.simulators.deepgram_flux_engine import Ending, Say
from tests.simulators.openai import Reply, Request
from tests.speech import say_mulaw, silence_mulaw
from tests.virtual_time import event_loop_policy as event_loop_policy

LLM = "openai:gpt-test"
WHOLE = ["bot.speaking", "bot.word", "message.confirmed", "bot.finished"]


def echo(request: Request) -> Reply:
    return Reply(f"You said {request.last_user_text}.")


def chat(body: dict[str, Any]) -> list[tuple[str, str]]:
    """The messages of a request as pairs."""
    return [(entry["role"], entry.get("content") or "") for entry in body["messages"]]


async def answer(agent: Agent) -> Frame:
    """The `bot.finished` of the next answer."""
    return await agent.wait("bot.finished")


@pytest.mark.proves("row-31", "row-32", "ws-35", "row-35", "row-36")
@pytest.mark.parametrize(
    "llm",
    [
        LLM,
        "openai/gpt-test",
        {"engine": "openai", "model": "gpt-test"},
        {"provider": "openai", "model": "gpt-test"},
        {"engine": "gpt-test", "model": "gpt-test", "enabled": True, "prompt": "Be kind."},
    ],
    ids=["colon", "slash", "engine", "provider", "deploy"],
)
async def test_a_turn_is_answered_by_the_model_of_the_server(llm: object) -> None:
    async with running([Say("a table for two")], model=echo) as rig:
        agent = await rig.agent(llm=llm, prompt="Be kind.")
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "a table for two")
        finished = await answer(agent)
        assert finished["text"] == "You said a table for two."
        assert of_message(agent, finished["message_id"]) == WHOLE
        assert words_heard(caller, loop_time(rig, end)) == 6
        [request] = rig.vendors.model.chats
        assert request["model"] == "gpt-test"
        assert request["stream"] is True
        assert chat(request) == [("system", "Be kind."), ("user", "a table for two")]
        assert [frame["role"] for frame in await record(agent, caller)] == ["system", "user", "assistant"]
        assert {frame["call_id"] for frame in agent.frames if "seq" in frame} == {call}


@pytest.mark.proves("row-34", "row-208")
async def test_options_and_a_model_nobody_heard_of_reach_the_vendor_as_they_are() -> None:
    async with running([Say("hello")], model=echo) as rig:
        llm = {"provider": "openai", "model": "gpt-9-chat-latest", "temperature": 0.25, "max_tokens": 77}
        agent = await rig.agent(llm=llm)
        caller, _ = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        await answer(agent)
        [request] = rig.vendors.model.chats
        assert request["model"] == "gpt-9-chat-latest"
        assert request["temperature"] == 0.25
        assert 77 in (request.get("max_tokens"), request.get("max_completion_tokens"))


@pytest.mark.proves("row-31")
async def test_without_a_key_for_the_model_the_agent_is_told_at_once() -> None:
    async with running(local_fallback=False) as rig:
        agent = await rig.connected()
        await agent.send("agent.create", agent_id="mara", llm="mistral:mistral-small-latest")
        error = await agent.wait("error")
        assert (error["code"], error["agent_id"]) == ("PROVIDER_KEY_REQUIRED", "mara")


async def test_the_model_is_asked_when_the_turn_is_probably_over_and_heard_when_it_is() -> None:
    async with running([Say("a table for two")], model=echo) as rig:
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        caller.say(spoken("a table for two"))
        await agent.wait("eager.turn")
        await asyncio.sleep(0.1)
        assert len(rig.vendors.model.chats) == 1
        end = await agent.wait("turn.end")
        await answer(agent)
        assert len(rig.vendors.model.chats) == 1, "asked once, not twice"
        [audible] = moments(caller, Happening.BOT_AUDIBLE)
        assert -0.001 < audible - loop_time(rig, end) < 0.06


async def test_what_the_model_thought_too_early_is_thrown_away_without_a_trace() -> None:
    async with running([Say("a table for two please", Ending.RESUMED)], model=echo) as rig:
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        await take_turn(agent, caller, "a table for two please")
        finished = await answer(agent)
        first, last = rig.vendors.model.chats[0], rig.vendors.model.chats[-1]
        assert chat(first)[-1] == ("user", "a table for two")
        assert chat(last) == [("user", "a table for two please")]
        assert finished["text"] == "You said a table for two please."
        assert agent.count("bot.speaking") == 1
        assert agent.count("bot.interrupted") == 0, "nobody was ever told of it"
        said = await record(agent, caller)
        assert [entry["content"] for entry in said][-2:] == ["a table for two please", finished["text"]]


async def test_going_on_before_the_answer_is_heard_stops_the_model_and_asks_again_with_everything() -> None:
    def slow(request: Request) -> Reply:
        return Reply(f"You said {request.last_user_text}.", first_token_delay=1.5)

    async with running([Say("a table for two"), Say("outside please")], model=slow) as rig:
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        await take_turn(agent, caller, "a table for two")
        end = await take_turn(agent, caller, "outside please")
        assert end["turn_id"] == 1
        assert (await answer(agent))["text"] == "You said a table for two outside please."
        assert chat(rig.vendors.model.chats[-1]) == [("user", "a table for two outside please")]
        assert agent.count("bot.speaking") == 1


async def test_an_interrupted_answer_stays_in_the_models_memory_as_far_as_it_was_heard() -> None:
    long = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa"
    async with running([Say("hello"), Say("no wait stop")], model=[Reply(long), Reply("Very well.")]) as rig:
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        await agent.wait("bot.speaking")
        await asyncio.sleep(3)
        caller.say(spoken("no wait stop"))
        interrupted = await agent.wait("bot.interrupted")
        await agent.wait("turn.end")
        await answer(agent)
        confirmed = next(frame["text"] for frame in agent.frames if frame["event"] == "message.confirmed")
        assert long.startswith(confirmed)
        assert len(confirmed.split()) == interrupted["words_spoken"]
        heard = [("user", "hello"), ("assistant", confirmed), ("user", "no wait stop")]
        assert chat(rig.vendors.model.chats[-1]) == heard
        said = [(entry["role"], entry["content"]) for entry in await record(agent, caller)]
        assert said[-4:] == [*heard, ("assistant", "Very well.")]


async def test_the_model_stops_writing_when_the_caller_takes_over() -> None:
    endless = " ".join(["and so on"] * 300)
    async with running(
        [Say("hello"), Say("no wait stop")], model=[Reply(endless, token_delay=0.05), Reply("Very well.")]
    ) as rig:
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        await agent.wait("bot.speaking")
        await asyncio.sleep(3)
        caller.say(spoken("no wait stop"))
        await agent.wait("bot.interrupted")
        async with asyncio.timeout(1):
            await rig.vendors.model.abandoned.wait()
        await agent.wait("turn.end")
        assert (await answer(agent))["text"] == "Very well."
        await asyncio.sleep(5)
        assert agent.count("bot.speaking") == 2


async def test_an_answer_is_spoken_from_its_first_sentence_while_the_model_still_writes() -> None:
    text = "I can offer you a table at eight. " + "Or would you rather sit outside in the garden this time? " * 3

    def slow(_: Request) -> Reply:
        return Reply(text.strip(), token_delay=0.2)

    async with running([Say("hello")], model=slow) as rig:
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        speaking = await agent.wait("bot.speaking")
        assert speaking["text"] == ""
        assert loop_time(rig, speaking) - loop_time(rig, end) < 2
        finished = await answer(agent)
        assert finished["text"].strip() == text.strip()
        assert words_heard(caller, 0) == len(text.split())


@pytest.mark.proves("row-60")
async def test_a_greeting_of_the_configuration_is_spoken_and_remembered() -> None:
    async with running([Say("hello")], model=echo) as rig:
        agent = await rig.agent(llm=LLM, greeting="Welcome to the garden.", prompt="Be kind.")
        caller, _ = await rig.call(agent)
        greeting = await answer(agent)
        speaking = about(agent, greeting["message_id"])[0]
        assert (speaking["event"], speaking["text"]) == ("bot.speaking", "Welcome to the garden.")
        assert names(agent.frames)[3:5] == ["call.started", "bot.speaking"]
        await take_turn(agent, caller, "hello")
        await answer(agent)
        [request] = rig.vendors.model.chats
        assert chat(request)[1:] == [("assistant", "Welcome to the garden."), ("user", "hello")]
        said = await record(agent, caller)
        assert [entry["role"] for entry in said] == ["system", "assistant", "user", "assistant"]


async def test_what_the_agent_says_is_in_the_record_but_in_the_models_memory_only_on_request() -> None:
    async with running([Say("hello")], model=echo) as rig:
        agent = await rig.agent(llm=LLM)
        caller, call = await rig.call(agent)
        await agent.say(call, "This call is recorded.", "aside")
        await agent.send("bot.reply", call_id=call, message_id="kept", text="I am Mara.", add_to_history=True)
        await agent.wait("bot.finished", message_id="kept")
        await take_turn(agent, caller, "hello")
        await answer(agent)
        [request] = rig.vendors.model.chats
        assert chat(request) == [("assistant", "I am Mara."), ("user", "hello")]
        said = [entry["content"] for entry in await record(agent, caller)]
        assert said == ["This call is recorded.", "I am Mara.", "hello", "You said hello."]


async def test_an_agent_with_a_model_on_the_server_may_still_reply_and_is_heard_after_it() -> None:
    async with running([Say("hello")], model=echo) as rig:
        agent = await rig.agent(llm=LLM)
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        await agent.wait("bot.speaking")
        await agent.say(call, "And I mean it.", "m1", end["message_id"])
        await agent.wait("bot.finished", message_id="m1")
        finished = [frame["text"] for frame in agent.frames if frame["event"] == "bot.finished"]
        assert finished == ["You said hello.", "And I mean it."]


async def test_an_answer_without_words_is_no_message() -> None:
    async with running([Say("hello"), Say("hello again")], model=[Reply("")] * 2) as rig:
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        await asyncio.sleep(3)
        assert not any(name.startswith("bot.") for name in names(agent.frames))
        assert (await take_turn(agent, caller, "hello again"))["event"] == "turn.end"


async def test_a_hesitating_caller_costs_no_second_answer() -> None:
    async with running([Say("a table for two outside please")], model=echo) as rig:
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        caller.say(say_mulaw("a table for two") + silence_mulaw(200) + spoken("outside please"))
        await agent.wait("turn.continued")
        await agent.wait("turn.end")
        await answer(agent)
        await asyncio.sleep(3)
        assert agent.count("bot.speaking") == 1
        users = [text for role, text in chat(rig.vendors.model.chats[-1]) if role == "user"]
        assert users == ["a table for two outside please"]
