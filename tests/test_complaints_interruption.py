"""What users of voice frameworks complain of when they interrupt: docs/complaints.md, numbers 1 to 11."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from demo.caller import Happening
from demo.dialling import Dial, place_call
from tests.call_facts import RawLine, loop_time, moments, raw_line, sound_between
from tests.call_scenes import record, take_turn, words_heard
from tests.phone_rig import NUMBER, names, running, spoken
from tests.simulators.deepgram_flux_engine import Ending, Say
from tests.simulators.deepgram_nova import Line, NovaSimulator
from tests.simulators.openai import CalledTool, Reply, Request
from tests.speech import frames, noise_mulaw, say_mulaw, silence_mulaw
from tests.virtual_time import event_loop_policy as event_loop_policy

LLM = "openai:gpt-test"
MANY_WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec"
LONG_ANSWER = "One two three four five six seven. " + "Eight nine ten eleven twelve thirteen fourteen. " * 4
COUGH = noise_mulaw(700, level_db=-15.0) + silence_mulaw(2500)
NO_WORDS = Say("", Ending.PLAIN)


# --- 3 ---


async def test_what_an_agent_goes_on_writing_after_the_barge_in_is_never_heard() -> None:
    async with running([Say("hello"), Say("no wait stop")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        stream = {"call_id": call, "message_id": "s1"}
        await agent.send("bot.reply.stream", **stream, action="start", in_reply_to=end["message_id"])
        await agent.send("bot.reply.stream", **stream, action="chunk", token=f"{MANY_WORDS}. ")
        await agent.wait("bot.speaking")
        await asyncio.sleep(3)
        caller.say(spoken("no wait stop"))
        stopped = loop_time(rig, await agent.wait("bot.interrupted"))
        for _ in range(20):
            await agent.send("bot.reply.stream", **stream, action="chunk", token=f"{MANY_WORDS}. ")
            await asyncio.sleep(0.25)
        await agent.send("bot.reply.stream", **stream, action="end")
        await asyncio.sleep(5)
        assert not sound_between(caller, stopped + 0.1, stopped + 10)
        assert agent.count("bot.speaking") == 1


# --- 4 ---


class LateCarrier:
    """A carrier that says nothing of what it played: everything that was sent may still be in its buffer."""

    def __init__(self, line: RawLine) -> None:
        self.line = line
        self.told: list[str] = []

    async def listen(self) -> None:
        async for text in self.line.socket:
            self.told.append(json.loads(text)["event"])

    async def speak(self, mulaw: bytes) -> None:
        for number, frame in enumerate(frames(mulaw)):
            media = {"track": "inbound", "chunk": str(number), "timestamp": str(number * 20)}
            await self.line.send("media", media={**media, "payload": base64.b64encode(frame).decode()})
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("by", ["voice", "agent"])
async def test_a_carrier_is_told_to_clear_although_all_audio_was_sent_long_ago(by: str) -> None:
    text = "We open at seven tonight."
    async with running([Say("no wait stop please")]) as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        async with raw_line(dial, await place_call(dial)) as line, asyncio.TaskGroup() as tasks:
            await line.start()
            await agent.wait("call.started")
            carrier = LateCarrier(line)
            listening = tasks.create_task(carrier.listen())
            await agent.say(dial.call_sid, text, "m1")
            await agent.wait("bot.speaking")
            await asyncio.sleep(len(text) * 0.06)
            sent = carrier.told.count("media")
            if by == "voice":
                await carrier.speak(say_mulaw("no wait stop please"))
            else:
                await agent.send("bot.cancel", call_id=dial.call_sid)
            interrupted = await agent.wait("bot.interrupted", message_id="m1")
            await asyncio.sleep(0.1)
            assert carrier.told.count("media") == sent, "all of it had been sent"
            assert carrier.told[-1] == "clear"
            assert interrupted["played_ms"] < len(text) * 60
            listening.cancel()
            await line.send("stop", stop={})


# --- 7 ---


@pytest.mark.parametrize("heard_s", [0.4, 3.0], ids=["just begun", "later"])
async def test_a_cough_over_an_answer_that_is_still_being_written_costs_none_of_it(heard_s: float) -> None:
    async with running([Say("tell me all"), NO_WORDS], model=[Reply(LONG_ANSWER, token_delay=0.25)]) as rig:
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        await take_turn(agent, caller, "tell me all")
        await agent.wait("bot.speaking")
        await asyncio.sleep(heard_s)
        caller.say(COUGH)
        cut = await agent.wait("bot.interrupted")
        rest = await agent.wait("bot.speaking")
        assert loop_time(rig, rest) - loop_time(rig, cut) < 3.5
        await agent.wait("bot.finished", message_id=rest["message_id"])
        said = " ".join(entry["content"] for entry in await record(agent, caller) if entry["role"] == "assistant")
        assert said.split() == LONG_ANSWER.split()
        assert len(rig.vendors.model.chats) == 1, "asked once"


async def test_a_cough_over_the_words_before_a_tool_loses_neither_their_rest_nor_the_result() -> None:
    tool: dict[str, Any] = {
        "type": "function",
        "function": {"name": "find", "parameters": {"type": "object", "properties": {}}},
    }
    before = "Let me look that up for you, it will only take a moment or two, please stay on the line."

    def model(request: Request) -> Reply:
        known = [entry["content"] for entry in request.body["messages"] if entry["role"] == "tool"]
        return Reply(f"It is {known[0]}.") if known else Reply(before, [CalledTool("find", "{}", "call_1")])

    async with running([Say("find my booking"), NO_WORDS], model=model) as rig:
        agent = await rig.agent(llm=LLM, tools=[tool])
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "find my booking")
        asked = await agent.wait("llm.tool_call")
        await asyncio.sleep(2.2)
        caller.say(COUGH)
        await agent.wait("bot.interrupted")
        results = [{"tool_call_id": "call_1", "result": "confirmed"}]
        await agent.send("llm.tool_result", call_id=call, msg_id=asked["msg_id"], results=results)
        await agent.wait("bot.finished", text="It is confirmed.")
        finished = [frame["text"] for frame in agent.frames if frame["event"] == "bot.finished"]
        assert finished[-1] == "It is confirmed.", "the rest of what was cut off came before it"
        said = " ".join(entry["content"] or "" for entry in await record(agent, caller) if entry["role"] == "assistant")
        assert " ".join(said.split()) == f"{before} It is confirmed."
        assert agent.count("llm.tool_call") == 1


async def test_words_after_the_voice_stop_the_model_that_was_left_to_write() -> None:
    async with running(
        [Say("tell me all"), Say("no make it short")], model=[Reply(LONG_ANSWER * 5, token_delay=0.25), Reply("Fine.")]
    ) as rig:
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        await take_turn(agent, caller, "tell me all")
        await agent.wait("bot.speaking")
        await asyncio.sleep(3)
        caller.say(spoken("no make it short"))
        await agent.wait("bot.interrupted")
        async with asyncio.timeout(1.5):
            await rig.vendors.model.abandoned.wait()
        end = await agent.wait("turn.end")
        assert (await agent.wait("bot.finished"))["text"] == "Fine."
        assert words_heard(caller, loop_time(rig, end)) == 1
        assert agent.count("bot.speaking") == 2


# --- 8 ---


async def test_the_recogniser_gets_every_sample_before_during_and_after_a_barge_in() -> None:
    async with running([Say("hello"), Say("no wait stop")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        await agent.say(call, MANY_WORDS, "m1", end["message_id"])
        await agent.wait("bot.speaking")
        await asyncio.sleep(3)
        caller.say(spoken("no wait stop"))
        await agent.wait("bot.interrupted")
        await agent.wait("turn.end")
        [flux] = rig.vendors.flux.connections
        got = bytes(flux.audio)
        assert got == bytes(caller.said)[: len(got)]
        assert len(caller.said) - len(got) <= 8 * 200


# --- 9 ---


@pytest.mark.parametrize("stt", ["deepgram-flux", "deepgram/nova-3"])
async def test_a_caller_who_speaks_into_and_out_of_a_muted_greeting_is_heard_from_then_on(stt: str) -> None:
    lines = ["is anybody there please", "a table for two"]
    # What is said before and after the unmute are two utterances for Nova, which is asked for its words in between.
    async with NovaSimulator([Line("is anybody"), Line("there please"), Line(lines[1])]) as nova:
        other: dict[str, Any] = {} if "flux" in stt else {"deepgram_ws_url": nova.url}
        async with running([Say(text) for text in lines], **other) as rig:
            agent = await rig.agent(stt=stt)
            caller, call = await rig.call(agent)
            caller.say(spoken(lines[0]))
            await agent.wait("speech.started")
            await agent.ask("call.mute", "call.muted", call_id=call)
            await agent.say(call, "Hello there.", "m1")
            await agent.wait("bot.finished", message_id="m1")
            await agent.ask("call.unmute", "call.unmuted", call_id=call)
            await caller.wait_said()
            await asyncio.sleep(2)
            caller.say(spoken(lines[1]))
            while not (end := await agent.wait("turn.end"))["text"].endswith(lines[1]):
                pass
            await agent.say(call, "For two, fine.", "m2", end["message_id"])
            await agent.wait("bot.finished", message_id="m2")
            await rig.wind_up()


# --- 11 ---


async def test_with_interruption_off_background_noise_neither_stops_the_bot_nor_becomes_a_turn() -> None:
    async with running([Say("hello"), NO_WORDS, Say("thank you")]) as rig:
        agent = await rig.agent(interruption=False)
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        await agent.say(call, MANY_WORDS, "m1", end["message_id"])
        await agent.wait("bot.speaking")
        caller.say(noise_mulaw(3000, level_db=-18.0) + silence_mulaw(500))
        await agent.wait("bot.finished", message_id="m1")
        await asyncio.sleep(2)
        told = names(agent.of_call(call))
        assert "bot.interrupted" not in told
        assert told.count("turn.end") == told.count("user.message") == 1
        assert not moments(caller, Happening.CLEARED)
        assert (await take_turn(agent, caller, "thank you"))["turn_id"] == 2
