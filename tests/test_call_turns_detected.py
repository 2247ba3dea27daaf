"""Turns that are found by us, on a whole call with the real built-in engines: ears, voice detector, turn model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from demo.caller import Happening
from tests.call_facts import loop_time, moments, sound_between
from tests.call_scenes import of_message, record, take_turn, words_heard
from tests.local_ears import EnginesHere
from tests.phone_rig import names, running, spoken
from tests.simulators.openai import Reply, Request
from tests.speech import noise_mulaw, say_mulaw, silence_mulaw
from tests.virtual_time import event_loop_policy as event_loop_policy

GRAMMAR = """#JSGF V1.0;
grammar calls;
public <call> = a table for (two | three) [on [friday [at eight]]] | no wait stop please | friday at eight | mm;
"""
WHOLE = "a table for two on friday at eight"
TRAILING = "a table for two on"
"""Sounds unfinished to the turn model (0.01, where the whole sentence has 0.98)."""
LOCAL: dict[str, Any] = {"stt": {"provider": "local", "grammar": GRAMMAR}}
MANY_WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec"


@pytest.mark.proves("row-67", "row-68", "row-69", "row-70", "row-71", "row-74", "ws-21")
async def test_a_turn_is_told_in_the_documented_order() -> None:
    async with running(engines=EnginesHere) as rig:
        agent = await rig.agent(**LOCAL)
        caller, call = await rig.call(agent)
        caller.say(silence_mulaw(300))
        end = await take_turn(agent, caller, WHOLE)
        assert end["text"] == WHOLE
        frames = agent.of_call(call)
        told = [name for name in names(frames) if name != "user.speaking"]
        assert told == ["call.started", "speech.started", "speech.ended", "user.message", "eager.turn", "turn.end"]
        assert names(frames).count("user.speaking") >= 2
        message, eager, end = frames[-3:]
        assert message["message_id"] == eager["message_id"] == end["message_id"]
        assert end["probability"] >= 0.5
        await caller.wait_said()
        [stopped] = moments(caller, Happening.SPEECH_ENDED)
        assert loop_time(rig, end) - stopped < 0.6
        await agent.say(call, "On Friday, for two.", "m1", end["message_id"])
        await agent.wait("bot.finished", message_id="m1")
        assert [entry["content"] for entry in await record(agent, caller)] == [WHOLE, "On Friday, for two."]


@pytest.mark.proves("row-31")
async def test_the_built_in_engines_hold_a_conversation_with_the_servers_model() -> None:
    def echo(request: Request) -> Reply:
        return Reply(f"You said {request.last_user_text}.")

    async with running(model=echo, engines=EnginesHere) as rig:
        agent = await rig.agent(**LOCAL, voice="local", llm="openai:gpt-test")
        caller, _ = await rig.call(agent)
        caller.say(silence_mulaw(300))
        await take_turn(agent, caller, WHOLE)
        finished = await agent.wait("bot.finished")
        assert finished["text"] == f"You said {WHOLE}."
        assert sound_between(caller, loop_time(rig, finished) - 1, loop_time(rig, finished))
        assert len(rig.vendors.model.chats) == 1


@pytest.mark.proves("row-72")
async def test_trailing_off_is_a_pause_and_three_seconds_of_it_end_the_turn() -> None:
    async with running(engines=EnginesHere) as rig:
        agent = await rig.agent(**LOCAL)
        caller, _ = await rig.call(agent)
        caller.say(silence_mulaw(300) + say_mulaw(TRAILING) + silence_mulaw(4000))
        pause = await agent.wait("turn.pause")
        assert pause["probability"] < 0.5
        end = await agent.wait("turn.end")
        await caller.wait_said()
        [stopped] = moments(caller, Happening.SPEECH_ENDED)
        assert loop_time(rig, end) - stopped == pytest.approx(3.0, abs=0.35)
        assert agent.count("turn.pause") == 1, "once a silence"
        assert end["text"] == TRAILING


@pytest.mark.proves("row-72")
async def test_going_on_after_a_pause_is_the_same_turn() -> None:
    async with running(engines=EnginesHere) as rig:
        agent = await rig.agent(**LOCAL)
        caller, _ = await rig.call(agent)
        caller.say(silence_mulaw(300) + say_mulaw(TRAILING) + silence_mulaw(1200) + spoken("friday at eight"))
        await agent.wait("turn.pause")
        resumed = await agent.wait("turn.resumed")
        end = await agent.wait("turn.end")
        assert resumed["turn_id"] == end["turn_id"] == 1
        assert end["text"] == f"{TRAILING} friday at eight"
        ids = [frame["message_id"] for frame in agent.frames if frame["event"] == "user.message"]
        assert len(ids) == len(set(ids))
        assert ids[-1] == end["message_id"]


@pytest.mark.proves("ws-22", "row-73")
async def test_speaking_again_before_the_answer_goes_on_with_the_turn() -> None:
    async with running(engines=EnginesHere) as rig:
        agent = await rig.agent(**LOCAL)
        caller, _ = await rig.call(agent)
        caller.say(silence_mulaw(300))
        first = await take_turn(agent, caller, WHOLE)
        second = await take_turn(agent, caller, "no wait stop please")
        assert agent.count("turn.continued") == 1
        assert (second["turn_id"], second["text"]) == (1, f"{WHOLE} no wait stop please")
        assert second["message_id"] != first["message_id"]


@pytest.mark.proves("ws-24", "row-78", "row-79", "row-106")
async def test_a_voice_over_the_bot_stops_it_at_once_and_only_heard_words_are_kept() -> None:
    async with running(engines=EnginesHere) as rig:
        agent = await rig.agent(**LOCAL)
        caller, call = await rig.call(agent)
        caller.say(silence_mulaw(300))
        end = await take_turn(agent, caller, WHOLE)
        await agent.say(call, MANY_WORDS, "m1", end["message_id"])
        speaking = await agent.wait("bot.speaking")
        await asyncio.sleep(3)
        caller.say(spoken("no wait stop please"))
        interrupted = await agent.wait("bot.interrupted")
        end = await agent.wait("turn.end")
        stopped = loop_time(rig, interrupted)
        [cleared] = moments(caller, Happening.CLEARED)
        assert cleared - stopped < 0.1
        assert moments(caller, Happening.BOT_QUIET)[-1] - stopped < 0.1
        assert stopped - moments(caller, Happening.SPEECH_BEGAN)[-1] < 0.8
        assert interrupted["reason"] == "user_spoke"
        assert (end["turn_id"], end["text"]) == (2, "no wait stop please")
        confirmed = next(frame["text"] for frame in agent.frames if frame["event"] == "message.confirmed")
        heard = words_heard(caller, loop_time(rig, speaking))
        assert MANY_WORDS.startswith(confirmed)
        assert len(confirmed.split()) in (heard, heard - 1)


@pytest.mark.proves("ws-25", "row-106")
@pytest.mark.parametrize(
    "sound",
    [
        say_mulaw("mm")[: 8 * 250],
        noise_mulaw(1500, -30.0),
        say_mulaw("no wait stop please", pitch=50)[8 * 60 : 8 * 160],
    ],
    ids=["murmur", "noise", "short"],
)
async def test_what_is_no_speech_of_its_own_does_not_stop_the_bot(sound: bytes) -> None:
    async with running(engines=EnginesHere) as rig:
        agent = await rig.agent(**LOCAL)
        caller, call = await rig.call(agent)
        caller.say(silence_mulaw(300))
        end = await take_turn(agent, caller, WHOLE)
        await agent.say(call, MANY_WORDS, "m1", end["message_id"])
        await agent.wait("bot.speaking")
        await asyncio.sleep(2)
        caller.say(sound + silence_mulaw(900))
        await agent.wait("bot.finished")
        assert of_message(agent, "m1") == ["bot.speaking", "bot.word", "message.confirmed", "bot.finished"]


@pytest.mark.proves("row-107")
async def test_with_interruption_off_the_bot_finishes_and_what_was_said_is_answered_after() -> None:
    async with running(engines=EnginesHere) as rig:
        agent = await rig.agent(**LOCAL, interruption=False)
        caller, call = await rig.call(agent)
        caller.say(silence_mulaw(300))
        end = await take_turn(agent, caller, WHOLE)
        await agent.say(call, MANY_WORDS, "m1", end["message_id"])
        await agent.wait("bot.speaking")
        await asyncio.sleep(1)
        caller.say(spoken("no wait stop please"))
        await agent.wait("bot.finished", message_id="m1")
        end = await agent.wait("turn.end")
        assert agent.count("bot.interrupted") == 0
        assert (end["turn_id"], end["text"]) == (2, "no wait stop please")


async def test_noise_alone_is_no_turn() -> None:
    async with running(engines=EnginesHere) as rig:
        agent = await rig.agent(**LOCAL)
        caller, _ = await rig.call(agent)
        caller.say(noise_mulaw(3000, -35.0) + silence_mulaw(1000))
        await caller.wait_said()
        assert not {"user.message", "eager.turn", "turn.end"} & set(names(agent.frames))
        end = await take_turn(agent, caller, WHOLE)
        assert (end["turn_id"], end["text"]) == (1, WHOLE)


async def test_a_caller_who_talks_across_the_end_of_a_bot_that_may_not_be_stopped_is_answered() -> None:
    async with running(engines=EnginesHere) as rig:
        agent = await rig.agent(**LOCAL, interruption=False, greeting="alpha bravo charlie delta echo")
        caller, call = await rig.call(agent)
        await agent.wait("bot.speaking")
        await asyncio.sleep(1.2)
        end = await take_turn(agent, caller, WHOLE)
        assert names(agent.of_call(call)).count("bot.finished") == 1
        assert (end["turn_id"], end["text"]) == (1, WHOLE)
