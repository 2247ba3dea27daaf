"""The caller talks over the bot, with Deepgram Flux, end to end: what stops it, how fast, and what is left of it."""

from __future__ import annotations

import asyncio

import pytest

from demo.caller import Happening, SoftwareCaller
from tests.call_facts import about, loop_time, moments
from tests.call_scenes import of_message, record, take_turn, words_heard
from tests.phone_rig import Agent, Frame, Rig, names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.speech import noise_mulaw, say_mulaw, silence_mulaw
from tests.virtual_time import event_loop_policy as event_loop_policy

MANY_WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec"
"""Six and a half seconds of the simulated voice, one sentence."""


async def bot_speaks(rig: Rig, interruption: object = True) -> tuple[Agent, SoftwareCaller, str, float]:
    """A call whose caller said something and is now being answered by message `m1`; when that became audible."""
    agent = await rig.agent(interruption=interruption)
    caller, call = await rig.call(agent)
    end = await take_turn(agent, caller, "hello")
    await agent.say(call, MANY_WORDS, "m1", end["message_id"])
    speaking = await agent.wait("bot.speaking")
    return agent, caller, call, loop_time(rig, speaking)


async def talk_over(agent: Agent, caller: SoftwareCaller, text: str) -> Frame:
    """The caller talks over the bot; the `bot.interrupted` this leads to."""
    caller.say(spoken(text))
    return await agent.wait("bot.interrupted")


@pytest.mark.proves("ws-23", "row-78")
async def test_talking_into_the_first_two_seconds_of_an_answer_goes_on_with_the_turn() -> None:
    async with running([Say("hello"), Say("no wait for three")]) as rig:
        agent, caller, _, began = await bot_speaks(rig)
        await asyncio.sleep(0.7)
        interrupted = await talk_over(agent, caller, "no wait for three")
        stopped = loop_time(rig, interrupted)
        assert interrupted["reason"] == "continuation"
        assert interrupted["played_ms"] / 1000 == pytest.approx(stopped - began, abs=0.06)
        assert interrupted["words_spoken"] == sum(frame["event"] == "bot.word" for frame in about(agent, "m1")) > 0
        continued = await agent.wait("turn.continued")
        assert continued["turn_id"] == 1
        end = await agent.wait("turn.end")
        assert (end["turn_id"], end["text"]) == (1, "hello no wait for three")
        assert of_message(agent, "m1") == ["bot.speaking", "bot.word", "bot.interrupted"]
        assert [entry["content"] for entry in await record(agent, caller)] == ["hello no wait for three"]


@pytest.mark.proves("ws-24", "row-78", "row-79")
async def test_talking_over_a_later_part_is_a_new_turn_and_only_heard_words_are_kept() -> None:
    async with running([Say("hello"), Say("no wait for three")]) as rig:
        agent, caller, _, began = await bot_speaks(rig)
        await asyncio.sleep(4)
        interrupted = await talk_over(agent, caller, "no wait for three")
        stopped = loop_time(rig, interrupted)
        assert interrupted["reason"] == "user_spoke"
        end = await agent.wait("turn.end")
        assert (end["turn_id"], end["text"]) == (2, "no wait for three")
        told = names(agent.frames)
        first = told.index("message.confirmed")
        assert told[first : first + 3] == ["message.confirmed", "bot.interrupted", "turn.continued"]
        assert agent.frames[first + 2]["turn_id"] == 1
        confirmed = agent.frames[first]["text"]
        assert MANY_WORDS.startswith(confirmed)
        heard = words_heard(caller, began)
        assert len(confirmed.split()) in (heard, heard - 1), "the last word counts once half of it was heard"
        assert interrupted["words_spoken"] == len(confirmed.split())
        assert interrupted["last_word"] == confirmed.split()[-1]
        [cleared] = moments(caller, Happening.CLEARED)
        assert cleared - stopped < 0.1
        assert moments(caller, Happening.BOT_QUIET)[-1] - stopped < 0.1
        assert cleared - moments(caller, Happening.SPEECH_BEGAN)[-1] < 0.6
        said = [(entry["role"], entry["content"]) for entry in await record(agent, caller)]
        assert said == [("user", "hello"), ("assistant", confirmed), ("user", "no wait for three")]


@pytest.mark.proves("ws-24")
async def test_after_an_interruption_nothing_more_is_told_of_the_message_and_the_next_answer_is_heard() -> None:
    async with running([Say("hello"), Say("no wait")]) as rig:
        agent, caller, call, _ = await bot_speaks(rig)
        await asyncio.sleep(3)
        await talk_over(agent, caller, "no wait")
        end = await agent.wait("turn.end")
        await agent.say(call, "As you wish.", "m2", end["message_id"])
        await agent.wait("bot.finished", message_id="m2")
        assert of_message(agent, "m1")[-1] == "bot.interrupted"
        assert of_message(agent, "m2") == ["bot.speaking", "bot.word", "message.confirmed", "bot.finished"]
        assert words_heard(caller, loop_time(rig, end)) == 3


@pytest.mark.proves("ws-24")
async def test_answers_that_wait_behind_an_interrupted_one_are_dropped_each_with_a_word_of_it() -> None:
    async with running([Say("hello"), Say("no wait")]) as rig:
        agent, caller, call, _ = await bot_speaks(rig)
        answered = next(frame["message_id"] for frame in agent.frames if frame["event"] == "turn.end")
        await agent.say(call, "And another thing.", "m2", answered)
        await agent.say(call, "And a third.", "m3", answered)
        await asyncio.sleep(3)
        await talk_over(agent, caller, "no wait")
        await agent.wait("turn.end")
        for waiting in ("m2", "m3"):
            [dropped] = about(agent, waiting)
            assert (dropped["event"], dropped["reason"]) == ("bot.interrupted", "user_spoke")
            assert (dropped["played_ms"], dropped["words_spoken"]) == (0, 0)
        assert [entry["role"] for entry in await record(agent, caller)] == ["user", "assistant", "user"]


@pytest.mark.proves("ws-25", "row-106")
async def test_a_murmur_of_agreement_does_not_stop_the_bot_and_is_no_turn() -> None:
    async with running([Say("hello"), Say("mm-hm"), Say("a table for two")]) as rig:
        agent, caller, _, _ = await bot_speaks(rig)
        await asyncio.sleep(1)
        caller.say(say_mulaw("mm")[: 8 * 300] + silence_mulaw(900))
        await agent.wait("bot.finished", message_id="m1")
        assert agent.count("bot.interrupted") == 0
        end = await take_turn(agent, caller, "a table for two")
        assert (end["turn_id"], end["text"]) == (2, "a table for two")
        assert agent.count("speech.started") == 2


@pytest.mark.proves("ws-25", "row-107")
async def test_with_interruption_off_the_bot_finishes_and_what_was_said_is_answered_after() -> None:
    async with running([Say("hello"), Say("one more thing before we go on")]) as rig:
        agent, caller, _, _ = await bot_speaks(rig, interruption=False)
        await asyncio.sleep(1)
        caller.say(spoken("one more thing before we go on"))
        end = await agent.wait("turn.end")
        told = names(agent.frames)
        assert agent.count("bot.interrupted") == 0
        assert told.index("bot.finished") < len(told) - 1 - told[::-1].index("user.message")
        assert told.index("bot.finished") < len(told) - 1 - told[::-1].index("speech.started")
        assert (end["turn_id"], end["text"]) == (2, "one more thing before we go on")
        assert words_heard(caller, 0.0) == len(MANY_WORDS.split())


async def test_two_things_said_over_a_bot_that_may_not_be_interrupted_are_both_answered() -> None:
    async with running([Say("hello"), Say("one more thing"), Say("and a chair")]) as rig:
        agent, caller, _, _ = await bot_speaks(rig, interruption=False)
        caller.say(spoken("one more thing") + spoken("and a chair"))
        end = await agent.wait("turn.end")
        assert end["text"] == "one more thing and a chair"


@pytest.mark.proves("row-106")
@pytest.mark.parametrize(
    ("energy_db", "ms", "stops"),
    [(-25.0, 500, True), (-35.0, 500, False), (-25.0, 100, False)],
    ids=["loud", "quiet", "short"],
)
async def test_only_a_voice_that_is_loud_and_long_enough_stops_the_bot(energy_db: float, ms: int, stops: bool) -> None:
    rules = {"energy_threshold_db": -30, "min_duration_ms": 200}
    async with running([Say("hello"), Say("wait")]) as rig:
        agent, caller, _, _ = await bot_speaks(rig, interruption=rules)
        await asyncio.sleep(3)
        caller.say(noise_mulaw(ms, energy_db) + silence_mulaw(900))
        await agent.wait("bot.interrupted" if stops else "bot.finished")
        assert agent.count("bot.interrupted") == stops


@pytest.mark.proves("row-78")
async def test_what_is_said_while_the_first_message_begins_does_not_stop_it_and_is_answered_after() -> None:
    async with running([Say("hello there")]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, MANY_WORDS, "m1")
        await agent.wait("bot.speaking")
        caller.say(spoken("hello there")[: 8 * 400] + silence_mulaw(900))
        await agent.wait("bot.finished")
        assert agent.count("bot.interrupted") == 0
        assert (await agent.wait("turn.end"))["text"] == "hello there"


async def test_a_caller_who_speaks_over_the_greeting_is_heard_and_gets_turn_one() -> None:
    async with running([Say("I want to book a table")]) as rig:
        agent = await rig.agent(greeting=MANY_WORDS)
        caller, call = await rig.call(agent)
        speaking = await agent.wait("bot.speaking")
        caller.say(spoken("I want to book a table"))
        interrupted = await agent.wait("bot.interrupted")
        assert interrupted["message_id"] == speaking["message_id"]
        assert interrupted["played_ms"] >= 580
        end = await agent.wait("turn.end")
        assert (end["turn_id"], end["text"]) == (1, "I want to book a table")
        await agent.say(call, "Gladly.", "m1", end["message_id"])
        await agent.wait("bot.finished", message_id="m1")


@pytest.mark.parametrize("before_s", [0.3, 0.8, 1.3, 1.7])
async def test_a_caller_who_talks_across_the_end_of_a_bot_that_may_not_be_stopped_is_answered(before_s: float) -> None:
    greeting = "alpha bravo charlie delta echo"
    async with running([Say("I want to book a table for two")]) as rig:
        agent = await rig.agent(interruption=False, greeting=greeting)
        caller, _ = await rig.call(agent)
        await agent.wait("bot.speaking")
        await asyncio.sleep(len(greeting) * 0.06 - before_s)
        end = await take_turn(agent, caller, "I want to book a table for two")
        assert agent.count("bot.finished") == 1
        assert (end["turn_id"], end["text"]) == (1, "I want to book a table for two")


async def test_a_caller_may_interrupt_again_and_again_and_is_always_heard() -> None:
    words = ["no wait", "listen to me", "and another thing", "that is all thank you"]
    async with running([Say("hello"), *map(Say, words)]) as rig:
        agent, caller, call, _ = await bot_speaks(rig)
        for number, text in enumerate(words):
            await asyncio.sleep(2.5)
            await talk_over(agent, caller, text)
            end = await agent.wait("turn.end")
            assert (end["turn_id"], end["text"]) == (number + 2, text)
            await agent.say(call, MANY_WORDS, f"again{number}", end["message_id"])
            await agent.wait("bot.speaking")
        await agent.wait("bot.finished")
        roles = [entry["role"] for entry in await record(agent, caller)]
        assert roles == ["user", "assistant"] * 5
