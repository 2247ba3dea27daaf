"""A call and its agent's connection, and many of both at once: whole calls in virtual time."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from demo.dialling import Dial, place_call
from tests.call_facts import (
    GREETING,
    LONG,
    SPOKEN,
    TABLE,
    about,
    ended,
    ended_already,
    lawful,
    raw_line,
    reply_to,
    story,
)
from tests.call_facts import faultless as faultless
from tests.phone_rig import NUMBER, names, running, spoken
from tests.simulators.deepgram_flux_engine import Say
from tests.virtual_time import event_loop_policy as event_loop_policy

pytestmark = pytest.mark.usefixtures("faultless")


# --- the agent's connection ---


@pytest.mark.proves("ws-48", "row-4")
async def test_an_agent_that_comes_back_is_given_its_call_again_before_any_other_event() -> None:
    async with running([Say(TABLE)]) as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        await agent.wait("bot.word", word_index=2)
        agent.drop()
        await asyncio.sleep(2)
        assert caller.is_bot_audible()
        again = await rig.agent()
        resumed = again.of_call(call)[0]
        assert (resumed["event"], resumed["resumed"]) == ("call.started", True)
        assert (resumed["direction"], resumed["transport"], resumed["metadata"]) == ("inbound", "phone", {})
        await again.wait("bot.finished", message_id="m1")
        caller.say(spoken(TABLE))
        await reply_to(again, call, "Two it is.", "m2")
        assert story(about(again, "m2")) == SPOKEN
        await caller.hang_up()
        over = await again.wait("call.ended")
        assert [entry["content"] for entry in over["messages"]] == [LONG, TABLE, "Two it is."]
        assert names(again.of_call(call)).count("call.started") == 1
        # And new calls find it.
        other, _ = await rig.call(again)
        await other.hang_up()


@pytest.mark.proves("ws-48")
async def test_a_call_whose_agent_stays_away_ends_after_the_grace() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        agent.drop()
        gone = asyncio.get_running_loop().time()
        await caller.wait_ended(30)
        assert asyncio.get_running_loop().time() - gone == pytest.approx(20, abs=0.5)
        assert caller.moments[-1].detail == "gateway"
        again = await rig.agent()
        await asyncio.sleep(2)
        assert again.of_call(call) == []


async def test_without_a_grace_a_call_ends_with_its_agents_connection() -> None:
    async with running(agent_grace_seconds=0) as rig:
        agent = await rig.agent()
        caller, _ = await rig.call(agent)
        agent.drop()
        await caller.wait_ended(1)


async def test_an_agent_that_says_goodbye_takes_its_calls_with_it() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, _ = await rig.call(agent)
        await agent.socket.close(1000, "client_disconnect")
        await caller.wait_ended(1)


async def test_an_agent_that_is_removed_ends_its_calls_and_says_so() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.ask("agent.remove", "agent.removed", agent_id="mara")
        await caller.wait_ended(1)
        (over,) = [frame for frame in agent.of_call(call) if frame["event"] == "call.ended"]
        assert over["reason"] == "agent_removed"
        await ended_already(agent, call)


async def test_an_agent_that_dropped_between_webhook_and_stream_still_gets_the_call() -> None:
    async with running() as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        answer = await place_call(dial)
        agent.drop()
        async with raw_line(dial, answer) as line:
            await line.start()
            await asyncio.sleep(1)
            again = await rig.agent()
            assert names(again.of_call(dial.call_sid)) == ["call.started"]
            await line.send("stop", stop={})
            await again.wait("call.ended")
            assert names(again.of_call(dial.call_sid)) == ["call.started", "call.ended"]


@pytest.mark.proves("row-6")
async def test_pings_go_both_ways_while_a_call_is_talking() -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, call = await rig.call(agent)
        await agent.say(call, LONG, "m1")
        for _ in range(5):
            assert isinstance((await agent.ask("ping", "pong"))["timestamp"], float)
            await asyncio.sleep(0.5)
        await agent.wait("bot.finished")
        await asyncio.sleep(50)
        assert agent.count("call.ended") == 0
        await caller.hang_up()
        await ended(agent, call)


# --- many ---


@pytest.mark.proves("row-9", "row-65")
async def test_events_of_agents_that_share_a_socket_never_cross() -> None:
    async with running() as rig:
        socket = await rig.connected()
        texts = {"mara": "Mara speaking.", "Bruno_2": "Hello, this is Bruno.", "line 3": "You have reached line three."}
        numbers = dict(zip(texts, ("+13186330961", "+13186330962", "+13186330963"), strict=True))
        config = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux"}
        for agent_id, number in numbers.items():
            await socket.ask("agent.create", "agent.created", agent_id=agent_id, **config)
            await socket.ask("channel.add", "channel.added", agent_id=agent_id, type="phone", ref=number)
        callers = {agent_id: await rig.caller(number) for agent_id, number in numbers.items()}
        await asyncio.gather(*(caller.ring() for caller in callers.values()))
        for agent_id, text in texts.items():
            started = await socket.told(callers[agent_id].dial.call_sid, "call.started")
            assert (started["agent_id"], started["to"]) == (agent_id, numbers[agent_id])
            await socket.say(started["call_id"], text, f"m {agent_id}")
        await asyncio.sleep(4)
        for agent_id, caller in callers.items():
            frames = socket.of_call(caller.dial.call_sid)
            assert {frame["agent_id"] for frame in frames} == {agent_id}
            assert {frame["message_id"] for frame in frames if "message_id" in frame} == {f"m {agent_id}"}
            assert caller.heard_ms == pytest.approx(len(texts[agent_id]) * 60, abs=80)
        for caller in callers.values():
            await caller.hang_up()
            await ended(socket, caller.dial.call_sid)


@pytest.mark.proves("row-111", "row-65")
async def test_twenty_calls_at_once_on_one_agent_all_come_to_their_own_end() -> None:
    async with running([Say(TABLE)]) as rig:
        agent = await rig.agent()
        numbers = count()

        async def conversation() -> None:
            caller = await rig.caller(caller=f"+155501001{next(numbers):02}")
            await caller.ring()
            call = caller.dial.call_sid
            await agent.told(call, "call.started")
            await agent.say(call, GREETING, f"greeting {call}")
            await caller.wait_bot_done()
            caller.say(spoken(TABLE))
            await caller.wait_said()
            turn = await agent.told(call, "turn.end")
            await agent.say(call, f"Fine, {caller.dial.caller}.", f"reply {call}", turn["message_id"])
            await caller.wait_bot_done()
            await caller.hang_up()
            over = await agent.told(call, "call.ended")
            assert [entry["content"] for entry in over["messages"]] == [GREETING, TABLE, f"Fine, {caller.dial.caller}."]

        async with asyncio.timeout(60), asyncio.TaskGroup() as calls:
            for _ in range(20):
                calls.create_task(conversation())
        await asyncio.sleep(5)
        assert agent.count("call.started") == agent.count("call.ended") == 20
        for caller in rig.callers:
            lawful(agent.of_call(caller.dial.call_sid))
