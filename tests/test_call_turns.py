"""Turns on the telephone with Deepgram Flux, end to end: when what is said counts, and to what an answer belongs."""

from __future__ import annotations

import asyncio

import pytest

from demo.caller import Happening
from tests.call_facts import loop_time, moments
from tests.call_scenes import of_message, record, take_turn
from tests.phone_rig import names, running, spoken
from tests.simulators.deepgram_flux_engine import Ending, Say
from tests.speech import say_mulaw, silence_mulaw
from tests.virtual_time import event_loop_policy as event_loop_policy


@pytest.mark.proves("row-67", "row-68", "row-69", "row-70", "row-71", "row-74", "ws-21")
async def test_a_turn_is_told_in_the_documented_order_with_all_it_promises() -> None:
    async with running([Say("a table for two tomorrow please")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await take_turn(agent, caller, "a table for two tomorrow please")
        frames = agent.of_call(call)
        told = [name for name in names(frames) if name != "user.speaking"]
        assert told == ["call.started", "speech.started", "speech.ended", "user.message", "eager.turn", "turn.end"]
        interims = [frame["text"] for frame in frames if frame["event"] == "user.speaking"]
        assert len(interims) >= 2
        assert interims == sorted(interims, key=len)
        message, eager, end = frames[-3:]
        assert message["message_id"] == eager["message_id"] == end["message_id"]
        assert message["text"] == eager["text"] == end["text"] == "a table for two tomorrow please"
        assert {frame["turn_id"] for frame in frames[1:]} == {1}
        assert 0 <= eager["probability"] <= end["probability"] <= 1
        assert 200 <= eager["latency_ms"] < end["latency_ms"] <= 900
        await caller.wait_said()
        [ended] = moments(caller, Happening.SPEECH_ENDED)
        assert loop_time(rig, end) - ended == pytest.approx(end["latency_ms"] / 1000, abs=0.15)


@pytest.mark.proves("row-37", "row-193")
async def test_without_a_model_on_the_server_a_turn_waits_for_the_agent_and_nobody_else_answers() -> None:
    async with running([Say("is anybody there")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "is anybody there")
        await asyncio.sleep(8)
        assert names(agent.of_call(call))[-1] == "turn.end"
        assert not moments(caller, Happening.BOT_AUDIBLE)
        await agent.say(call, "Yes, I am.", "m1", end["message_id"])
        await agent.wait("bot.finished", message_id="m1")
        assert not rig.vendors.model.requests


@pytest.mark.proves("ws-21", "row-70")
async def test_a_reply_that_is_ready_early_is_held_back_until_the_turn_is_over() -> None:
    async with running([Say("a table for two")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        caller.say(spoken("a table for two"))
        eager = await agent.wait("eager.turn")
        await agent.say(call, "For two, gladly.", "m1", eager["message_id"])
        end = await agent.wait("turn.end")
        await agent.wait("bot.finished")
        [audible] = moments(caller, Happening.BOT_AUDIBLE)
        assert loop_time(rig, end) - loop_time(rig, eager) >= 0.3
        assert -0.001 < audible - loop_time(rig, end) < 0.06, "held until the end, and ready then"
        assert names(agent.of_call(call)).index("turn.end") < names(agent.of_call(call)).index("bot.speaking")


@pytest.mark.proves("ws-22", "row-73")
async def test_speaking_again_before_the_answer_goes_on_with_the_same_turn() -> None:
    async with running([Say("a table for two"), Say("outside please")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        first = await take_turn(agent, caller, "a table for two")
        second = await take_turn(agent, caller, "outside please")
        assert names(agent.of_call(call)).count("turn.continued") == 1
        assert second["turn_id"] == first["turn_id"] == 1
        assert second["message_id"] != first["message_id"]
        assert second["text"] == "a table for two outside please"
        ids = [frame["message_id"] for frame in agent.frames if frame["event"] == "user.message"]
        assert len(ids) == len(set(ids)) == 2


@pytest.mark.proves("row-73", "ws-21")
async def test_a_turn_the_recogniser_takes_back_is_continued_and_its_early_reply_never_heard() -> None:
    async with running([Say("a table for two please", Ending.RESUMED)]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        caller.say(spoken("a table for two please"))
        eager = await agent.wait("eager.turn")
        await agent.say(call, "For two. When?", "early", eager["message_id"])
        await agent.wait("turn.continued", turn_id=1)
        end = await agent.wait("turn.end")
        assert end["text"] == "a table for two please"
        assert end["message_id"] != eager["message_id"]
        assert end["turn_id"] == eager["turn_id"]
        await agent.say(call, "For two, please is noted.", "late", end["message_id"])
        await agent.wait("bot.finished", message_id="late")
        assert of_message(agent, "early") == ["bot.interrupted"]
        interrupted = next(frame for frame in agent.frames if frame["event"] == "bot.interrupted")
        assert (interrupted["played_ms"], interrupted["words_spoken"]) == (0, 0)
        assert interrupted["reason"] == "continuation"
        assert len(moments(caller, Happening.BOT_AUDIBLE)) == 1


@pytest.mark.proves("ws-19", "row-43")
async def test_a_reply_to_what_the_caller_has_outrun_is_rejected_and_never_heard() -> None:
    async with running([Say("a table for two"), Say("no for three")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        old = await take_turn(agent, caller, "a table for two")
        caller.say(spoken("no for three"))
        await agent.wait("turn.continued")
        await agent.say(call, "Too early.", "m0", old["message_id"])
        assert (await agent.wait("reply.rejected", message_id="m0"))["expected_reply_to"] == ""
        new = await agent.wait("turn.end")
        await agent.say(call, "For two.", "m1", old["message_id"])
        rejected = await agent.wait("reply.rejected", message_id="m1")
        assert rejected["expected_reply_to"] == new["message_id"]
        assert rejected["in_reply_to"] == old["message_id"]
        assert rejected["reason"] == "message_obsolete"
        await asyncio.sleep(3)
        assert not moments(caller, Happening.BOT_AUDIBLE)
        await agent.say(call, "For three.", "m2", new["message_id"])
        await agent.wait("bot.finished", message_id="m2")
        assert of_message(agent, "m1") == ["reply.rejected"]


@pytest.mark.proves("ws-20")
async def test_two_replies_to_one_message_are_both_spoken_in_order() -> None:
    async with running([Say("a table for two")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "a table for two")
        await agent.say(call, "For two.", "m1", end["message_id"])
        await agent.say(call, "At what time?", "m2", end["message_id"])
        await agent.wait("bot.finished", message_id="m2")
        whole = ["bot.speaking", "bot.word", "message.confirmed", "bot.finished"]
        assert of_message(agent, "m1") == of_message(agent, "m2") == whole
        order = [(frame["event"], frame["message_id"]) for frame in agent.frames if "bot." in frame["event"]]
        assert order.index(("bot.finished", "m1")) < order.index(("bot.speaking", "m2"))


@pytest.mark.proves("row-45")
async def test_an_open_stream_is_void_when_the_caller_goes_on_and_its_rest_is_ignored() -> None:
    async with running([Say("a table for two outside please")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        caller.say(say_mulaw("a table for two") + silence_mulaw(200) + spoken("outside please"))
        eager = await agent.wait("eager.turn")
        stream = {"call_id": call, "message_id": "s1"}
        await agent.send("bot.reply.stream", **stream, action="start", in_reply_to=eager["message_id"])
        await agent.send("bot.reply.stream", **stream, action="chunk", token="For two. ")
        await agent.wait("turn.continued")
        await agent.wait("bot.interrupted", message_id="s1", played_ms=0)
        await agent.send("bot.reply.stream", **stream, action="chunk", token="And at what time? ")
        await agent.send("bot.reply.stream", **stream, action="end")
        end = await agent.wait("turn.end")
        await agent.say(call, "Outside, then.", "m2", end["message_id"])
        await agent.wait("bot.finished", message_id="m2")
        assert of_message(agent, "s1") == ["bot.interrupted"]
        [audible] = moments(caller, Happening.BOT_AUDIBLE)
        assert audible > loop_time(rig, end)


async def test_speech_long_after_an_unanswered_turn_is_a_turn_of_its_own() -> None:
    async with running([Say("hello"), Say("is anybody there")]) as rig:
        agent = await rig.agent()
        caller, _ = await rig.call(agent)
        await take_turn(agent, caller, "hello")
        await asyncio.sleep(3)
        end = await take_turn(agent, caller, "is anybody there")
        assert (end["turn_id"], end["text"]) == (2, "is anybody there")
        assert agent.count("turn.continued") == 0
        assert [m["content"] for m in (await record(agent, caller))] == ["hello", "is anybody there"]


async def test_an_answered_turn_is_followed_by_the_next_number() -> None:
    async with running([Say("hello"), Say("a table for two")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        first = await take_turn(agent, caller, "hello")
        await agent.say(call, "Hi.", "m1", first["message_id"])
        await agent.wait("bot.finished")
        second = await take_turn(agent, caller, "a table for two")
        assert (first["turn_id"], second["turn_id"]) == (1, 2)
        assert second["text"] == "a table for two"
        assert agent.count("turn.continued") == 0


@pytest.mark.proves("row-42")
async def test_what_the_agent_wants_to_say_waits_while_the_caller_speaks() -> None:
    async with running([Say("I would like a table for two"), Say("thank you")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        caller.say(spoken("I would like a table for two"))
        await agent.wait("user.speaking")
        await agent.say(call, "The kitchen closes soon.", "aside")
        end = await agent.wait("turn.end")
        await agent.say(call, "For two, then.", "m1", end["message_id"])
        await agent.wait("bot.finished", message_id="aside")
        await agent.wait("bot.finished", message_id="m1")
        assert end["text"] == "I would like a table for two"
        [ended] = moments(caller, Happening.SPEECH_ENDED)
        assert moments(caller, Happening.BOT_AUDIBLE)[0] > ended
        assert agent.count("bot.interrupted") == 0


async def test_what_was_being_said_when_the_caller_hung_up_is_in_the_record() -> None:
    async with running([Say("cancel my booking for tonight please")]) as rig:
        agent = await rig.agent()
        caller, _ = await rig.call(agent)
        caller.say(spoken("cancel my booking for tonight please"))
        await agent.wait("user.speaking", text="cancel my")
        said = await agent.wait("user.speaking")
        await caller.hang_up()
        ended = await agent.wait("call.ended")
        assert [(m["role"], m["content"]) for m in ended["messages"]] == [("user", said["text"])]


@pytest.mark.parametrize(
    "aside", ["Well.", "The kitchen closes very soon, so please be quick."], ids=["heard", "cut off"]
)
async def test_what_is_said_into_a_long_turn_does_not_tear_it_in_two(aside: str) -> None:
    long = "so I was thinking of a table for two on friday night at eight or maybe nine if that is possible"
    async with running([Say(long)]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        caller.say(spoken(long))
        await agent.wait("user.speaking")
        await agent.say(call, aside, "aside")
        end = await agent.wait("turn.end")
        assert (end["turn_id"], end["text"]) == (1, long)
        assert of_message(agent, "aside")[-1] in ("bot.finished", "bot.interrupted")
        assert moments(caller, Happening.BOT_AUDIBLE)[0] < loop_time(rig, end) - 1, "not put off for ever"
        assert agent.count("speech.started") == agent.count("speech.ended") == 1
        assert [entry["content"] for entry in await record(agent, caller) if entry["role"] == "user"] == [long]
