"""What an agent's program wants said, as it is spoken, told and heard: whole calls in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from demo.caller import Happening
from tests.call_facts import (
    GREETING,
    LONG,
    SPOKEN,
    about,
    heard_nothing,
    loop_time,
    moments,
    settled,
    sound_between,
    story,
)
from tests.call_facts import faultless as faultless
from tests.phone_rig import names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.virtual_time import event_loop_policy as event_loop_policy

pytestmark = pytest.mark.usefixtures("faultless")


# --- say and reply ---


@pytest.mark.proves("ws-15", "row-42", "row-66", "row-75", "row-77", "row-79")
async def test_a_greeting_is_told_in_order_and_heard_to_its_last_word() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, GREETING, "m1")
        finished = await agent.wait("bot.finished")
        frames = about(agent, "m1")
        assert story(frames) == SPOKEN
        assert frames[0]["text"] == GREETING
        assert " ".join(frame["word"] for frame in frames if frame["event"] == "bot.word") == GREETING
        assert frames[-2]["text"] == GREETING
        assert finished["duration_ms"] == pytest.approx(len(GREETING) * 60, abs=80)
        assert caller.heard_ms == finished["duration_ms"]


@pytest.mark.proves("row-76", "ws-15")
async def test_each_word_is_told_at_the_moment_the_caller_hears_it() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        for number, text in enumerate((LONG, GREETING)):
            await agent.say(call, text, f"m{number}")
            await agent.wait("bot.finished")
            await caller.wait_quiet(500)
            began = moments(caller, Happening.BOT_AUDIBLE)[number]
            words = [frame for frame in about(agent, f"m{number}") if frame["event"] == "bot.word"]
            assert [word["word_index"] for word in words] == list(range(len(text.split())))
            for word, after in zip(words, [*words[1:], None], strict=True):
                starts, ends = began + word["start_time"], began + word["end_time"]
                assert sound_between(caller, starts + 0.01, ends - 0.01)
                if after is not None:
                    assert not sound_between(caller, ends + 0.01, began + after["start_time"] - 0.01)
                assert abs(loop_time(rig, word) - (starts + ends) / 2) < 0.25


@pytest.mark.proves("row-75", "row-77")
async def test_speaking_and_finished_are_told_when_it_sounds_not_when_it_is_synthesised() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        speaking = await agent.wait("bot.speaking")
        finished = await agent.wait("bot.finished")
        await caller.wait_quiet(500)
        (began,), (ended,) = moments(caller, Happening.BOT_AUDIBLE), moments(caller, Happening.BOT_QUIET)
        assert abs(loop_time(rig, speaking) - began) < 0.1
        assert 0 <= loop_time(rig, finished) - ended < 0.3
        assert ended - began > 5


@pytest.mark.proves("ws-16")
async def test_messages_sent_at_once_are_heard_one_after_the_other_in_their_order() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        texts = {"m1": "The first one goes first.", "m2": "Second.", "m3": "And this is the last of all."}
        for message_id, text in texts.items():
            await agent.say(call, text, message_id)
        await agent.wait("bot.finished", message_id="m3")
        frames = [frame for frame in agent.of_call(call) if "message_id" in frame]
        assert [frame["message_id"] for frame in frames] == sorted(frame["message_id"] for frame in frames)
        assert story(frames) == SPOKEN * 3
        ends = [frame for frame in frames if frame["event"] == "bot.finished"]
        starts = [frame for frame in frames if frame["event"] == "bot.speaking"]
        assert caller.heard_ms == sum(end["duration_ms"] for end in ends)
        for end, start in zip(ends, starts[1:], strict=False):
            assert 0 <= start["ts"] - end["ts"] < 0.1


@pytest.mark.proves("row-43")
async def test_a_stale_reply_is_refused_and_the_fresh_one_is_spoken() -> None:
    async with running([Say("one moment please"), Say("a table for two")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        caller.say(spoken("one moment please"))
        first = await agent.wait("turn.end")
        await agent.say(call, "Take your time.", "m1", first["message_id"])
        await agent.wait("bot.finished", message_id="m1")
        caller.say(spoken("a table for two"))
        second = await agent.wait("turn.end")
        await agent.say(call, "Still there?", "m2", first["message_id"])
        refused = await agent.wait("reply.rejected")
        assert (refused["message_id"], refused["in_reply_to"]) == ("m2", first["message_id"])
        assert (refused["expected_reply_to"], refused["reason"]) == (second["message_id"], "message_obsolete")
        await agent.say(call, "Two it is.", "m3", second["message_id"])
        await agent.wait("bot.finished", message_id="m3")
        assert names(about(agent, "m2")) == ["reply.rejected"]
        assert story(about(agent, "m3")) == SPOKEN


@pytest.mark.proves("ws-20", "row-43")
async def test_several_replies_to_one_message_are_all_spoken() -> None:
    async with running([Say("a table for two")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        caller.say(spoken("a table for two"))
        turn = await agent.wait("turn.end")
        for message_id in ("m1", "m2"):
            await agent.say(call, "Let me see.", message_id, turn["message_id"])
        await agent.wait("bot.finished", message_id="m2")
        assert story(about(agent, "m1")) == story(about(agent, "m2")) == SPOKEN


async def test_a_message_without_an_id_gets_one_of_ours() -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await agent.send("bot.reply", call_id=call, text="Hello.", in_reply_to="")
        speaking = await agent.wait("bot.speaking")
        assert speaking["message_id"].startswith("msg_")
        assert len(speaking["message_id"]) == len("msg_") + 12
        assert (await agent.wait("bot.finished"))["message_id"] == speaking["message_id"]


async def test_a_message_id_is_good_for_one_message_only() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, "Hello.", "m1")
        await agent.say(call, "Hello again.", "m1")
        refused = await agent.wait("reply.rejected")
        assert (refused["message_id"], refused["reason"]) == ("m1", "duplicate_message_id")
        await agent.wait("bot.finished", message_id="m1")
        await agent.say(call, "And once more.", "m1")
        assert (await agent.wait("reply.rejected"))["reason"] == "duplicate_message_id"
        await settled(agent)
        assert caller.heard_ms == pytest.approx(len("Hello.") * 60, abs=80)


@pytest.mark.parametrize("text", ["", "   ", "…", "*** --- ***", "👍"])
async def test_a_message_with_nothing_to_say_is_only_finished(text: str) -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, text, "m1")
        assert (await agent.wait("bot.finished"))["duration_ms"] == 0
        assert names(about(agent, "m1")) == ["bot.finished"]
        assert heard_nothing(caller)
        await agent.say(call, GREETING, "m2")
        await agent.wait("bot.finished", message_id="m2")
        assert story(about(agent, "m2")) == SPOKEN


async def test_a_message_beyond_all_reason_is_cut_and_can_be_stopped() -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await agent.say(call, "word " * 20_000, "m1")
        assert 1000 < len((await agent.wait("bot.speaking"))["text"]) <= 16_000
        await asyncio.sleep(20)
        await agent.send("bot.cancel", call_id=call)
        stopped = await agent.wait("bot.interrupted")
        assert stopped["played_ms"] == pytest.approx(20_000, abs=250)
        await agent.say(call, "That was long.", "m2")
        await agent.wait("bot.finished", message_id="m2")


async def test_a_voice_that_cannot_speak_is_told_and_the_call_goes_on() -> None:
    async with running() as rig:
        agent = await rig.agent(voice="elevenlabs:nobody")
        caller, call = await rig.call(agent)
        await agent.say(call, GREETING, "m1")
        error = await agent.wait("error")
        assert (error["code"], error["call_id"], error["agent_id"]) == ("TTS_ERROR", call, "mara")
        assert (await agent.wait("bot.finished", message_id="m1"))["duration_ms"] == 0
        assert not caller.is_over
