"""Replies that are still being written, and taking back what was said: whole calls in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from demo.caller import Happening
from tests.call_facts import (
    CUT,
    GREETING,
    LONG,
    SPOKEN,
    about,
    heard_nothing,
    moments,
    settled,
    sound_between,
    story,
)
from tests.call_facts import faultless as faultless
from tests.phone_rig import Agent, names, running
from tests.virtual_time import event_loop_policy as event_loop_policy

pytestmark = pytest.mark.usefixtures("faultless")


async def stream(agent: Agent, call_id: str, message_id: str, action: str, **fields: object) -> None:
    await agent.send("bot.reply.stream", call_id=call_id, message_id=message_id, action=action, **fields)


# --- streams ---


@pytest.mark.proves("ws-17", "row-44")
async def test_a_stream_is_heard_while_it_is_still_being_written() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        tokens = ["Of course", " we have a table.", " It is by the", " window.", " Shall I book it?"]
        await stream(agent, call, "m1", "start", in_reply_to="")
        for token in tokens:
            await stream(agent, call, "m1", "chunk", token=token)
        await asyncio.sleep(3)
        assert sound_between(caller, moments(caller, Happening.ANSWERED)[0], asyncio.get_running_loop().time())
        assert names(about(agent, "m1"))[0] == "bot.speaking"
        assert agent.count("bot.finished") == 0
        await stream(agent, call, "m1", "end")
        await agent.wait("bot.finished")
        frames = about(agent, "m1")
        assert story(frames) == SPOKEN
        assert frames[0]["text"] == ""
        assert frames[-2]["text"] == "".join(tokens)


@pytest.mark.proves("row-44")
async def test_a_stream_speaks_its_first_sentence_before_the_second_is_there() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await stream(agent, call, "m1", "start", in_reply_to="")
        await stream(agent, call, "m1", "chunk", token="Let me look that up. ")
        await caller.wait_bot_audible(1.0)
        await caller.wait_quiet(1000)
        assert agent.count("bot.finished") == agent.count("message.confirmed") == 0
        await stream(agent, call, "m1", "chunk", token="It is free.")
        await stream(agent, call, "m1", "end")
        await agent.wait("bot.finished")
        assert agent.count("bot.speaking") == agent.count("message.confirmed") == 1
        words = [frame["word"] for frame in about(agent, "m1") if frame["event"] == "bot.word"]
        assert " ".join(words) == "Let me look that up. It is free."


@pytest.mark.proves("ws-18")
async def test_an_empty_stream_is_only_finished_and_the_call_stays_usable() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await stream(agent, call, "m1", "start", in_reply_to="")
        await stream(agent, call, "m1", "end")
        assert (await agent.wait("bot.finished"))["duration_ms"] == 0
        assert names(about(agent, "m1")) == ["bot.finished"]
        assert heard_nothing(caller)
        await agent.say(call, GREETING, "m2")
        await agent.wait("bot.finished", message_id="m2")
        assert story(about(agent, "m2")) == SPOKEN


@pytest.mark.parametrize("message_id", ["m1", ""])
async def test_a_chunk_without_a_start_begins_an_unconditional_stream(message_id: str) -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        if not message_id:
            await stream(agent, call, message_id, "start", in_reply_to="")
        await stream(agent, call, message_id, "chunk", token="Hello there, ")
        await stream(agent, call, message_id, "chunk", token="you two.")
        await stream(agent, call, message_id, "end")
        assert (await agent.wait("message.confirmed"))["text"] == "Hello there, you two."
        await agent.wait("bot.finished")
        await agent.say(call, "Next.", "m2")
        await agent.wait("bot.finished", message_id="m2")


async def test_a_refused_stream_is_refused_once_and_never_heard() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await stream(agent, call, "m1", "start", in_reply_to="u_of_yesterday")
        for token in ("Nobody ", "asked. "):
            await stream(agent, call, "m1", "chunk", token=token)
        await stream(agent, call, "m1", "end")
        await settled(agent)
        assert [(frame["event"], frame.get("reason")) for frame in about(agent, "m1")] == [
            ("reply.rejected", "message_obsolete")
        ]
        assert heard_nothing(caller)


async def test_what_comes_late_for_a_stream_is_dropped_in_silence() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await stream(agent, call, "m1", "start", in_reply_to="")
        await stream(agent, call, "m1", "chunk", token="Hello there.")
        await stream(agent, call, "m1", "start", in_reply_to="")
        await stream(agent, call, "m1", "end")
        finished = await agent.wait("bot.finished")
        told = len(agent.of_call(call))
        await stream(agent, call, "m1", "chunk", token="Too late.")
        await stream(agent, call, "m1", "end")
        await stream(agent, call, "never", "end")
        await settled(agent)
        assert len(agent.of_call(call)) == told
        assert caller.heard_ms == finished["duration_ms"]


async def test_a_stream_cut_off_by_its_agent_says_what_it_got() -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await stream(agent, call, "m1", "start", in_reply_to="")
        await stream(agent, call, "m1", "chunk", token="I was about to say that we")
        await stream(agent, call, "m1", "end")
        assert (await agent.wait("message.confirmed"))["text"] == "I was about to say that we"
        await agent.wait("bot.finished")


# --- cancel and clear ---


@pytest.mark.proves("ws-26", "row-46")
@pytest.mark.parametrize("named", [True, False])
async def test_cancel_stops_what_is_heard_and_only_that(named: bool) -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        await agent.say(call, "Never mind.", "m2")
        await agent.wait("bot.word", word_index=4)
        await agent.send("bot.cancel", call_id=call, **({"message_id": "m1"} if named else {}))
        stopped = await agent.wait("bot.interrupted")
        assert story(about(agent, "m1")) == CUT
        words = [frame["word"] for frame in about(agent, "m1") if frame["event"] == "bot.word"]
        assert (stopped["reason"], stopped["words_spoken"], stopped["last_word"]) == (
            "cancelled",
            len(words),
            words[-1],
        )
        confirmed = next(frame for frame in about(agent, "m1") if frame["event"] == "message.confirmed")
        assert confirmed["text"] == " ".join(words)
        assert LONG.startswith(confirmed["text"])
        (cleared,) = moments(caller, Happening.CLEARED)
        began = moments(caller, Happening.BOT_AUDIBLE)[0]
        assert stopped["played_ms"] == pytest.approx((cleared - began) * 1000, abs=60)
        await agent.wait("bot.finished", message_id="m2")
        assert story(about(agent, "m2")) == SPOKEN
        assert names(about(agent, "m1"))[-1] == "bot.interrupted"


@pytest.mark.proves("row-46")
async def test_cancel_takes_back_a_message_that_waits() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        for message_id in ("m1", "m2", "m3"):
            await agent.say(call, "This is the way it goes.", message_id)
        await agent.send("bot.cancel", call_id=call, message_id="m2")
        await agent.send("bot.cancel", call_id=call, message_id="nobody")
        await agent.wait("bot.finished", message_id="m3")
        (taken_back,) = about(agent, "m2")
        assert (taken_back["event"], taken_back["reason"]) == ("bot.interrupted", "cancelled")
        assert (taken_back["played_ms"], taken_back["words_spoken"]) == (0, 0)
        assert moments(caller, Happening.CLEARED) == []
        assert story(about(agent, "m1")) == story(about(agent, "m3")) == SPOKEN


async def test_cancel_with_nothing_to_cancel_says_nothing() -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await agent.send("bot.cancel", call_id=call)
        await agent.send("bot.clear", call_id=call)
        await agent.say(call, "Hello.", "m1")
        await agent.wait("bot.finished")
        await agent.send("bot.cancel", call_id=call, message_id="m1")
        await settled(agent)
        assert story(agent.of_call(call)) == ["call.started", *SPOKEN]


@pytest.mark.proves("ws-26", "row-47")
async def test_clear_stops_the_voice_and_empties_the_queue() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        for message_id in ("m1", "m2", "m3"):
            await agent.say(call, LONG, message_id)
        await agent.wait("bot.word", word_index=3)
        asked = asyncio.get_running_loop().time()
        await agent.send("bot.clear", call_id=call)
        await agent.wait("bot.interrupted", message_id="m3")
        stopped = [frame for frame in agent.of_call(call) if frame["event"] == "bot.interrupted"]
        assert [frame["message_id"] for frame in stopped] == ["m1", "m2", "m3"]
        assert {frame["reason"] for frame in stopped} == {"cancelled"}
        assert stopped[0]["played_ms"] > 500
        assert [frame["played_ms"] for frame in stopped[1:]] == [0, 0]
        told = len(agent.of_call(call))
        await settled(agent, 5)
        assert len(agent.of_call(call)) == told
        assert moments(caller, Happening.BOT_QUIET)[-1] - asked < 0.1
        await agent.say(call, "Once more.", "m4")
        await agent.wait("bot.finished", message_id="m4")


@pytest.mark.proves("row-46")
async def test_a_cancelled_stream_takes_no_more_words() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await stream(agent, call, "m1", "start", in_reply_to="")
        await stream(agent, call, "m1", "chunk", token="Let me tell you all about it. ")
        await agent.wait("bot.word", word_index=2)
        await agent.send("bot.cancel", call_id=call, message_id="m1")
        await agent.wait("bot.interrupted")
        heard = caller.heard_ms
        await stream(agent, call, "m1", "chunk", token="And there is more. ")
        await stream(agent, call, "m1", "end")
        await settled(agent)
        assert names(about(agent, "m1"))[-1] == "bot.interrupted"
        assert caller.heard_ms == heard
        await agent.say(call, "Next.", "m2")
        await agent.wait("bot.finished", message_id="m2")
