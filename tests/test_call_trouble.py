"""Vendors fail in mid-call, on their own wire: the agent is told, nobody waits for ever, the call goes on."""

from __future__ import annotations

import asyncio

import pytest

from tests.call_facts import loop_time, sound_between
from tests.call_scenes import of_message, record, take_turn, words_heard
from tests.phone_rig import names, running, spoken
from tests.simulators.deepgram_flux import Fault, FluxSimulator
from tests.simulators.deepgram_flux_engine import Ending, Say
from tests.simulators.elevenlabs import Faults
from tests.simulators.openai import Reply
from tests.virtual_time import event_loop_policy as event_loop_policy

LLM = "openai:gpt-test"
LONG = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec"

# --- the language model ---


@pytest.mark.proves("row-210")
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_vendor_that_is_busy_is_asked_again_and_nobody_notices(status: int) -> None:
    async with running([Say("hello")], model=[Reply(status=status), Reply("All is well.")]) as rig:
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        assert (await agent.wait("bot.finished"))["text"] == "All is well."
        assert agent.count("llm.error") == 0
        assert len(rig.vendors.model.chats) == 2


@pytest.mark.proves("row-210")
async def test_an_answer_cut_off_in_its_middle_is_an_error_and_the_call_goes_on() -> None:
    async with running(
        [Say("hello"), Say("are you there")],
        model=[Reply("One two three. Four five six.", cut_after=4), Reply("All is well again.")],
    ) as rig:
        agent = await rig.agent(llm=LLM)
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        error = await agent.wait("llm.error")
        assert error["call_id"] == call
        assert error["code"]
        first = await agent.wait("bot.finished")
        assert first["text"].strip() == "One two three. Four"
        await take_turn(agent, caller, "are you there")
        assert (await agent.wait("bot.finished"))["text"] == "All is well again."
        assert rig.vendors.model.chats[-1]["messages"][1]["content"] == first["text"].strip()


@pytest.mark.proves("row-210")
async def test_a_vendor_that_stays_down_is_told_and_the_agent_can_still_speak() -> None:
    async with running([Say("hello")], model=[Reply(status=500)] * 10) as rig:
        agent = await rig.agent(llm=LLM)
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        await agent.wait("llm.error")
        await agent.say(call, "Sorry, I lost the thread.", "m1", end["message_id"])
        await agent.wait("bot.finished", message_id="m1")
        assert agent.count("call.ended") == 0


# --- the recogniser ---


@pytest.mark.proves("row-210")
async def test_a_recogniser_that_drops_in_mid_turn_is_called_again_and_the_turn_is_heard() -> None:
    async with (
        FluxSimulator([Say("a table for two tomorrow evening please")], faults=[Fault(drop_at_ms=1500)]) as flux,
        running(deepgram_ws_url=flux.url) as rig,
    ):
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await asyncio.sleep(0.5)
        end = await take_turn(agent, caller, "a table for two tomorrow evening please")
        assert end["text"] == "a table for two tomorrow evening please"
        assert len(flux.connections) == 2
        await agent.say(call, "Noted.", "m1", end["message_id"])
        await agent.wait("bot.finished", message_id="m1")
        assert agent.count("call.ended") == 0
        assert [entry["role"] for entry in await record(agent, caller)] == ["user", "assistant"]


@pytest.mark.proves("row-210")
async def test_a_recogniser_that_cannot_be_reached_is_told_and_heard_again_when_it_is_back() -> None:
    down = [Fault(status=503)] * 4
    async with (
        FluxSimulator([Say("hello"), Say("hello again")], faults=down) as flux,
        running(deepgram_ws_url=flux.url) as rig,
    ):
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        error = await agent.wait("error")
        assert (error["code"], error["call_id"]) == ("STT_ERROR", call)
        await agent.say(call, "One moment please.", "m1")
        await agent.wait("bot.finished", message_id="m1")
        await asyncio.sleep(20)
        assert (await take_turn(agent, caller, "hello"))["text"] == "hello"
        assert agent.count("call.ended") == 0


async def test_a_recogniser_that_goes_silent_within_a_turn_does_not_leave_the_caller_in_it_for_ever() -> None:
    async with (
        FluxSimulator([Say("hello", Ending.STUCK), Say("hello"), Say("are you there")]) as flux,
        running(deepgram_ws_url=flux.url) as rig,
    ):
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        caller.say(spoken("hello"))
        started = await agent.wait("speech.started")
        over = await agent.wait("turn.end")
        assert loop_time(rig, over) - loop_time(rig, started) < 6
        await asyncio.sleep(3)
        await agent.say(call, "Hello you.", "m1")
        await agent.wait("bot.finished", message_id="m1")
        assert (await take_turn(agent, caller, "are you there"))["text"] == "are you there"
        assert len(flux.connections) == 2


# --- the voice ---


@pytest.mark.proves("row-210")
async def test_a_voice_that_drops_before_it_says_anything_is_called_again_and_nobody_notices() -> None:
    async with running() as rig:
        rig.vendors.voice.faults = lambda attempt: Faults(drop_after=0) if attempt == 0 else Faults()
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await agent.say(call, "Hello there.", "m1")
        await agent.wait("bot.finished", message_id="m1")
        assert of_message(agent, "m1") == ["bot.speaking", "bot.word", "message.confirmed", "bot.finished"]
        assert agent.count("error") == 0


@pytest.mark.proves("row-210")
@pytest.mark.parametrize(
    "fault",
    [
        Faults(drop_after=2),
        Faults(stall_after=2),
        Faults(error={"error": "rate_limit", "message": "slow down", "code": 1008}),
        Faults(handshake_status=429),
        Faults(handshake_status=500),
    ],
    ids=["dropped", "stalled", "refused", "429", "500"],
)
async def test_a_voice_that_fails_is_told_its_message_ends_and_the_next_one_is_heard(fault: Faults) -> None:
    async with running() as rig:
        broken = True
        rig.vendors.voice.faults = lambda _: fault if broken else Faults()
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        await agent.wait("bot.finished", 60, message_id="m1")
        [error] = [frame for frame in agent.frames if frame["event"] == "error"]
        began = next(frame for frame in agent.frames if frame["event"] == "call.started")
        assert loop_time(rig, error) - loop_time(rig, began) < 15
        assert (error["code"], error["call_id"]) == ("TTS_ERROR", call)
        broken = False
        await asyncio.sleep(1)
        await agent.say(call, "Here I am again.", "m2")
        again = await agent.wait("bot.finished", message_id="m2")
        assert of_message(agent, "m2") == ["bot.speaking", "bot.word", "message.confirmed", "bot.finished"]
        assert sound_between(caller, loop_time(rig, again) - 1, loop_time(rig, again))
        assert names(agent.of_call(call)).count("bot.finished") == 2


@pytest.mark.proves("row-210", "row-79")
@pytest.mark.parametrize(
    "fault", [Faults(drop_after=3), Faults(handshake_status=500)], ids=["in its middle", "at once"]
)
async def test_words_that_a_failing_voice_never_spoke_are_remembered_by_nobody(fault: Faults) -> None:
    async with running([Say("hello"), Say("hello again")], model=[Reply(LONG), Reply("Once more.")]) as rig:
        broken = True
        rig.vendors.voice.faults = lambda _: fault if broken else Faults()
        agent = await rig.agent(llm=LLM)
        caller, _ = await rig.call(agent)
        end = await take_turn(agent, caller, "hello")
        await agent.wait("bot.finished", 60)
        heard = words_heard(caller, loop_time(rig, end))
        assert heard < len(LONG.split()) / 2
        broken = False
        await take_turn(agent, caller, "hello again")
        await agent.wait("bot.finished", 60)
        told = rig.vendors.model.chats[-1]["messages"]
        known = [entry["content"] for entry in told if entry["role"] == "assistant"]
        confirmed = [frame["text"] for frame in agent.frames if frame["event"] == "message.confirmed"]
        assert confirmed == [*known, "Once more."]
        assert heard - 2 <= len(" ".join(known).split()) <= heard
        said = await record(agent, caller)
        assert [entry["content"] for entry in said if entry["role"] == "assistant"] == confirmed
