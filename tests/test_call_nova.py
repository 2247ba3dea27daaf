"""Whole calls heard by Deepgram Nova, with the built-in voice detector and turn model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from demo.caller import Happening
from tests.call_facts import loop_time, moments
from tests.call_scenes import of_message, record, take_turn
from tests.phone_rig import Rig, names, running, spoken
from tests.simulators.deepgram_nova import Closing, Fault, Line, NovaSimulator
from tests.simulators.openai import Reply, Request
from tests.speech import say_mulaw, silence_mulaw
from tests.virtual_time import event_loop_policy as event_loop_policy

WHOLE = "a table for two on friday at eight"
GREETING = "Hello there."
OPTIONS: dict[str, Any] = {
    "provider": "deepgram",
    "model": "nova-3",
    "language": "en-GB",
    "interim_results": True,
    "smart_format": False,
    "punctuate": True,
    "profanity_filter": True,
    "use_native_vad": True,
    "endpointing_ms": 350,
    "utterance_end_ms": 1200,
    "keywords": ["pinecall:2"],
    "keyterms": ["La Boca"],
    "min_confidence": 0.5,
}


@asynccontextmanager
async def heard_by(nova: NovaSimulator, **settings: Any) -> AsyncGenerator[Rig]:
    """A rig whose Deepgram is Nova; no call may leave a socket of it open."""
    async with nova, running(deepgram_ws_url=nova.url, **settings) as rig:
        yield rig
        await rig.wind_up()
        for connection in nova.connections:
            await asyncio.wait_for(connection.closed.wait(), 2)
        assert not nova.refused


@pytest.mark.proves("row-67", "row-68", "row-69", "row-70", "row-71", "row-74")
async def test_greeting_turn_and_reply_come_in_the_documented_order() -> None:
    def echo(request: Request) -> Reply:
        return Reply(f"You said {request.last_user_text}.")

    nova = NovaSimulator([Line(WHOLE)])
    async with heard_by(nova, model=echo) as rig:
        agent = await rig.agent(stt="deepgram", greeting=GREETING, llm="openai:gpt-test")
        caller, call = await rig.call(agent)
        greeted = await agent.wait("bot.finished")
        end = await take_turn(agent, caller, WHOLE)
        await agent.wait("bot.finished")
        frames = agent.of_call(call)
        assert frames[0]["event"] == "call.started"
        assert of_message(agent, greeted["message_id"]) == [
            "bot.speaking",
            "bot.word",
            "message.confirmed",
            "bot.finished",
        ]
        turn = frames[frames.index(greeted) + 1 :]
        order = [name for name in names(turn) if name != "user.speaking"]
        assert order[:5] == ["speech.started", "speech.ended", "user.message", "eager.turn", "turn.end"]
        assert [name for name in order[5:] if name != "bot.word"] == [
            "bot.speaking",
            "message.confirmed",
            "bot.finished",
        ]
        texts = [frame["text"] for frame in turn if frame["event"] == "user.speaking"]
        assert len(texts) >= 2
        assert texts == sorted(texts, key=len)
        assert end["text"] == WHOLE
        said = [entry["content"] for entry in await record(agent, caller)]
        assert said == [GREETING, WHOLE, f"You said {WHOLE}."]
    assert len(nova.connections) == 1


@pytest.mark.proves("row-87")
async def test_all_options_of_the_agent_reach_nova() -> None:
    nova = NovaSimulator()
    async with heard_by(nova) as rig:
        agent = await rig.agent(stt=OPTIONS)
        await rig.call(agent)
        await asyncio.sleep(1)
        assert nova.connections[0].query == {
            "model": ["nova-3"],
            "language": ["en-GB"],
            "encoding": ["mulaw"],
            "sample_rate": ["8000"],
            "interim_results": ["true"],
            "smart_format": ["false"],
            "punctuate": ["true"],
            "profanity_filter": ["true"],
            "vad_events": ["true"],
            "endpointing": ["350"],
            "utterance_end_ms": ["1200"],
            "keyterm": ["La Boca", "pinecall"],
        }


@pytest.mark.proves("row-87")
async def test_what_nova_is_unsure_of_is_no_turn() -> None:
    async with heard_by(NovaSimulator([Line("mumble mumble", confidence=0.3), Line(WHOLE)])) as rig:
        agent = await rig.agent(stt=OPTIONS)
        caller, _ = await rig.call(agent)
        caller.say(spoken("la la la la"))
        await caller.wait_said()
        await asyncio.sleep(2)
        assert agent.count("user.message") == 0
        assert (await take_turn(agent, caller, WHOLE))["text"] == WHOLE


async def test_a_turn_ends_although_nova_never_settles_its_words() -> None:
    nova = NovaSimulator([Line(WHOLE, Closing.NEVER)], answers_finalize=False)
    async with heard_by(nova) as rig:
        agent = await rig.agent(stt="deepgram")
        caller, _ = await rig.call(agent)
        end = await take_turn(agent, caller, WHOLE)
        await caller.wait_said()
        [stopped] = moments(caller, Happening.SPEECH_ENDED)
        assert end["text"] == WHOLE
        assert loop_time(rig, end) - stopped < 1.0


@pytest.mark.proves("row-210")
async def test_a_connection_that_breaks_mid_sentence_costs_no_word_and_no_turn() -> None:
    nova = NovaSimulator([Line(WHOLE)], faults=[Fault(drop_at_ms=1500)])
    async with heard_by(nova) as rig:
        agent = await rig.agent(stt="deepgram")
        caller, _ = await rig.call(agent)
        caller.say(silence_mulaw(300) + say_mulaw(WHOLE) + silence_mulaw(900))
        end = await agent.wait("turn.end")
        assert end["text"] == WHOLE
        assert agent.count("user.message") == 1
        assert agent.count("error") == 0
        assert len(nova.connections) == 2


async def test_in_native_mode_novas_own_endpoint_ends_the_turn() -> None:
    nova = NovaSimulator([Line(WHOLE)])
    async with heard_by(nova) as rig:
        agent = await rig.agent(stt="deepgram", turn_detection="native")
        caller, _ = await rig.call(agent)
        end = await take_turn(agent, caller, WHOLE)
        await caller.wait_said()
        [stopped] = moments(caller, Happening.SPEECH_ENDED)
        assert end["text"] == WHOLE
        assert loop_time(rig, end) - stopped == pytest.approx(0.55, abs=0.2)
        assert {"type": "Finalize"} not in nova.connections[0].messages
