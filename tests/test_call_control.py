"""Mute, hold, live reconfiguration and false interruptions, on whole calls."""

from __future__ import annotations

import asyncio

import pytest

from demo.caller import SoftwareCaller
from pipelines.audio import ulaw
from pipelines.audio.levels import energy_db
from tests.phone_rig import Agent, names, running, spoken
from tests.simulators.deepgram_flux_engine import Ending, Say
from tests.simulators.openai import Reply
from tests.speech import noise_mulaw, silence_mulaw
from tests.virtual_time import event_loop_policy as event_loop_policy

LONG = "This is a rather long answer that goes on for several seconds so that somebody can cough into it without words."


def told(agent: Agent, call: str) -> list[str]:
    return names(agent.of_call(call))


@pytest.mark.proves("ws-27", "row-53", "row-54")
async def test_what_is_said_while_muted_is_told_at_unmute_and_nothing_else_comes_of_it() -> None:
    async with running([Say("this is secret")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.ask("call.mute", "call.muted", call_id=call)
        caller.say(spoken("this is secret"))
        await caller.wait_quiet(2500)
        unmuted = await agent.ask("call.unmute", "call.unmuted", call_id=call)
        assert unmuted["muted_transcript"] == "this is secret"
        assert not {"user.message", "user.speaking", "speech.started", "turn.end"} & set(told(agent, call))
        again = await agent.ask("call.unmute", "call.unmuted", call_id=call)
        assert again["muted_transcript"] is None


async def test_after_unmute_the_caller_is_listened_to_again() -> None:
    async with running([Say("this is secret"), Say("a table for two")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.ask("call.mute", "call.muted", call_id=call)
        caller.say(spoken("this is secret"))
        await caller.wait_quiet(2500)
        await agent.ask("call.unmute", "call.unmuted", call_id=call)
        caller.say(spoken("a table for two"))
        assert (await agent.wait("turn.end"))["text"] == "a table for two"


@pytest.mark.proves("ws-28", "row-51", "row-52")
async def test_a_hold_plays_music_until_a_reply_ends_it() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.ask("call.hold", "call.held", call_id=call)
        began = len(caller.heard)
        await caller_hears_music(caller, began)
        await agent.say(call, "Thank you for waiting.", "m1")
        await agent.wait("call.unheld")
        await agent.wait("bot.speaking", message_id="m1")
        await agent.wait("bot.finished", message_id="m1")
        order = told(agent, call)
        assert order.index("call.held") < order.index("call.unheld") < order.index("bot.speaking")


async def caller_hears_music(caller: SoftwareCaller, began: int) -> None:
    await asyncio.sleep(3)
    music = ulaw.decode(caller.heard[began:])
    assert -32 < energy_db(music) < -18
    assert caller.max_lead_seen_ms <= 200


async def test_speech_that_is_queued_is_heard_before_the_music() -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await agent.say(call, "One moment please.", "m1")
        await agent.ask("call.hold", "call.held", call_id=call)
        order = told(agent, call)
        assert order.index("bot.finished") < order.index("call.held")
        unheld = await agent.ask("call.unhold", "call.unheld", call_id=call)
        assert unheld["muted_transcript"] is None


@pytest.mark.proves("ws-33", "row-25")
async def test_the_next_utterance_speaks_in_the_new_voice() -> None:
    async with running() as rig:
        rig.vendors.voice.voices.add("voice-2")
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await agent.say(call, "In the old voice.", "m1")
        await agent.wait("bot.finished", message_id="m1")
        answer = await agent.ask("session.configure", "session.configured", session_id=call, voice="elevenlabs:voice-2")
        assert answer["success"] is True
        await agent.say(call, "In the new voice.", "m2")
        await agent.wait("bot.finished", message_id="m2")
        assert [connection.voice for connection in rig.vendors.voice.connections] == ["voice-1", "voice-2"]


@pytest.mark.proves("row-26", "row-27")
async def test_the_recogniser_changes_in_mid_call_and_hears_the_next_sentence() -> None:
    async with running([Say("bonjour tout le monde")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        answer = await agent.ask("session.configure", "session.configured", session_id=call, stt="deepgram/flux-multi")
        assert answer["success"] is True
        caller.say(spoken("hello everybody"))
        assert (await agent.wait("turn.end"))["text"] == "bonjour tout le monde"
        assert len(rig.vendors.flux.connections) == 2


async def test_settings_that_cannot_be_are_refused_by_name_and_the_call_goes_on() -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        answer = await agent.ask("session.configure", "session.configured", session_id=call, voice="nobody:x")
        assert answer["success"] is False
        assert "voice" in answer["error"]
        await agent.say(call, "Still here.", "m1")
        await agent.wait("bot.finished", message_id="m1")


async def test_a_cough_that_stopped_the_bot_lets_it_finish_what_it_was_saying() -> None:
    """After the barge-in no words follow: the rest is spoken on from the word after the last one heard."""
    script = [Say("tell me all"), Say("", Ending.PLAIN)]
    async with running(script, model=[Reply(LONG)]) as rig:
        agent = await rig.agent(llm="openai:gpt-4.1-mini", prompt="Talk.")
        caller, _ = await rig.call(agent)
        caller.say(spoken("tell me all"))
        first = await agent.wait("bot.speaking")
        await agent.wait("bot.word", word_index=10)
        caller.say(noise_mulaw(700, level_db=-15.0) + silence_mulaw(2500))
        cut = await agent.wait("bot.interrupted", message_id=first["message_id"])
        rest = await agent.wait("bot.speaking")
        assert LONG.endswith(rest["text"])
        assert not rest["text"].startswith(cut["last_word"])
        await agent.wait("bot.finished", message_id=rest["message_id"])
        await caller.hang_up()
        ended = await agent.wait("call.ended")
        said = " ".join(entry["content"] for entry in ended["messages"] if entry["role"] == "assistant")
        assert said == LONG
