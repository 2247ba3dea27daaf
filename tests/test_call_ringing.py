"""Calls that ring at their agent before they are answered: taken, refused, timed out, hung up (behaviour §3.3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from demo.caller import SoftwareCaller
from demo.dialling import Answer, Outcome
from tests.call_facts import faultless as faultless
from tests.call_facts import form, settled, webhook
from tests.phone_rig import NUMBER, PATIENCE, Agent, Rig, names, running
from tests.virtual_time import event_loop_policy as event_loop_policy
from wire.commands import CallAccept

pytestmark = pytest.mark.usefixtures("faultless")

BUSY, REJECTED = Answer(Outcome.REJECTED, "busy"), Answer(Outcome.REJECTED, "rejected")
OTHER_NUMBER = "+12025550142"


async def screening_agent(rig: Rig, agent_id: str = "mara", number: str = NUMBER) -> Agent:
    """An agent that wants to be asked."""
    agent = await rig.agent(agent_id, OTHER_NUMBER if number == NUMBER else NUMBER)
    await agent.ask("channel.add", "channel.added", agent_id=agent_id, type="phone", ref=number, ringing=True)
    return agent


@asynccontextmanager
async def ringing(**settings: Any) -> AsyncGenerator[tuple[Rig, Agent, SoftwareCaller, asyncio.Task[Answer]]]:
    """A call that rings at its agent."""
    async with running(**settings) as rig:
        agent = await screening_agent(rig)
        caller = await rig.caller()
        answer = asyncio.create_task(caller.ring())
        await agent.wait("call.ringing", call_id=caller.dial.call_sid)
        yield rig, agent, caller, answer
        await answer
        # Nothing of it is left beyond what the rig's end looks for.
        assert not rig.leftovers()["expected calls"] or answer.result().outcome is Outcome.CONNECTED


def clock() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.proves("row-196")
async def test_a_call_rings_until_the_agent_takes_it() -> None:
    async with ringing() as (_, agent, caller, answer):
        call = caller.dial.call_sid
        (told,) = agent.of_call(call)
        assert {key: told[key] for key in ("from", "to", "direction", "agent_id")} == {
            "from": "+15550100199",
            "to": NUMBER,
            "direction": "inbound",
            "agent_id": "mara",
        }
        await asyncio.sleep(2)
        assert not answer.done()
        assert names(agent.of_call(call)) == ["call.ringing"]
        await agent.send("call.accept", agent_id="mara", call_id=call)
        assert (await answer).outcome is Outcome.CONNECTED
        await agent.wait("call.started", call_id=call)
        await agent.say(call, "Good evening.", "m1")
        await agent.wait("bot.finished")
        assert [frame["seq"] for frame in agent.of_call(call)] == list(range(len(agent.of_call(call))))


@pytest.mark.proves("row-196")
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, BUSY),
        ({"reason": "busy"}, BUSY),
        ({"reason": "rejected"}, REJECTED),
        ({"reason": "at lunch"}, BUSY),
    ],
)
async def test_a_refused_call_is_never_started_nor_ended(fields: dict[str, str], expected: Answer) -> None:
    async with ringing() as (_, agent, caller, answer):
        await agent.send("call.reject", agent_id="mara", call_id=caller.dial.call_sid, **fields)
        assert await answer == expected
        rejected = await agent.wait("call.rejected")
        assert rejected["reason"] == expected.detail
        await settled(agent, 10)
        assert names(agent.of_call(caller.dial.call_sid)) == ["call.ringing", "call.rejected"]


@pytest.mark.proves("row-196")
async def test_a_program_without_an_opinion_gets_the_call_after_five_seconds() -> None:
    async with ringing() as (_, agent, caller, answer):
        began = clock()
        assert (await answer).outcome is Outcome.CONNECTED
        assert clock() - began == pytest.approx(5, abs=0.3)
        await agent.wait("call.started", call_id=caller.dial.call_sid)


async def test_the_operator_says_how_long_agents_are_asked() -> None:
    async with ringing(ringing_timeout_ms=1500) as (_, agent, _, answer):
        began = clock()
        await answer
        assert clock() - began == pytest.approx(1.5, abs=0.3)
        await agent.wait("call.started")


@pytest.mark.proves("ws-51")
async def test_without_asking_for_it_nobody_is_asked() -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        assert names(agent.of_call(call)) == ["call.started"]


async def test_only_the_first_answer_counts() -> None:
    async with ringing() as (_, agent, caller, answer):
        call = caller.dial.call_sid
        await agent.send("call.accept", agent_id="mara", call_id=call)
        await agent.send("call.reject", agent_id="mara", call_id=call)
        await agent.send("call.accept", agent_id="mara", call_id=call)
        assert (await answer).outcome is Outcome.CONNECTED
        await agent.wait("call.started")
        await settled(agent)
        assert names(agent.of_call(call)) == ["call.ringing", "call.started"]


async def test_only_the_agent_that_was_asked_can_answer() -> None:
    async with ringing() as (rig, _, caller, answer):
        stranger = await rig.agent("bruno", "+442071838750")
        await stranger.send("call.reject", agent_id="mara", call_id=caller.dial.call_sid)
        await stranger.send("call.accept", agent_id="bruno", call_id=caller.dial.call_sid)
        await settled(stranger)
        assert not answer.done()
        assert (await answer).outcome is Outcome.CONNECTED


async def test_a_caller_who_hangs_up_while_it_rings_is_forgotten_without_a_word() -> None:
    async with ringing() as (rig, agent, caller, answer):
        gone = {"CallSid": caller.dial.call_sid, "CallStatus": "canceled"}
        async with httpx2.AsyncClient(trust_env=False) as http:
            assert (await http.post(f"{rig.http}/twilio/status", data=gone)).status_code == 204
        assert await answer == REJECTED
        assert rig.gateway.calls.expecting == 0
        await agent.send("call.accept", agent_id="mara", call_id=caller.dial.call_sid)
        await settled(agent, 6)
        assert names(agent.of_call(caller.dial.call_sid)) == ["call.ringing"]


@pytest.mark.parametrize("first", ["verdict", "hang-up"])
async def test_a_verdict_and_a_hang_up_in_the_same_instant_leave_nothing_behind(first: str) -> None:
    async with ringing() as (rig, agent, caller, answer):
        call_id = caller.dial.call_sid
        live = rig.gateway.calls.registry.calls.find("org_main", call_id)
        assert live is not None
        happens = [
            lambda: live.command(CallAccept(call_id=call_id)),
            lambda: rig.gateway.phone.status({"CallSid": call_id, "CallStatus": "canceled"}),
        ]
        for one in happens if first == "verdict" else reversed(happens):
            one()
        assert await answer == REJECTED
        assert rig.gateway.calls.expecting == 0
        await settled(agent, 31)
        assert names(agent.of_call(call_id)) == ["call.ringing"]


async def test_a_carrier_that_no_longer_waits_for_the_answer_is_as_good_as_a_caller_who_left() -> None:
    async with running() as rig:
        agent = await screening_agent(rig)
        asking = asyncio.create_task(webhook(rig, form()))
        await agent.wait("call.ringing")
        asking.cancel()
        await asyncio.sleep(1)
        assert rig.gateway.calls.expecting == 0
        await settled(agent, 6)
        assert names(agent.of_call(form()["CallSid"])) == ["call.ringing"]


async def test_a_carrier_that_asks_again_gets_the_same_answer_and_the_agent_is_asked_once() -> None:
    async with running() as rig:
        agent = await screening_agent(rig)
        first = asyncio.create_task(webhook(rig, form()))
        await agent.wait("call.ringing")
        second = asyncio.create_task(webhook(rig, form()))
        third = asyncio.create_task(webhook(rig, form()))
        await asyncio.sleep(0.5)
        first.cancel()
        await asyncio.sleep(0.5)
        assert rig.gateway.calls.expecting == 1
        await agent.send("call.accept", agent_id="mara", call_id=form()["CallSid"])
        one, other = (await second).text, (await third).text
        assert one == other
        assert "<Stream" in one
        assert agent.count("call.ringing") == 1
        await asyncio.sleep(31)  # its stream never opens


async def test_an_agent_that_comes_back_in_time_is_asked_again() -> None:
    async with ringing() as (rig, agent, caller, answer):
        agent.drop()
        await asyncio.sleep(1)
        again = await rig.connected()
        await again.send("agent.create", agent_id="mara", voice="elevenlabs:voice-1", stt="deepgram-flux")
        assert (await again.wait("call.ringing"))["call_id"] == caller.dial.call_sid
        await again.send("call.accept", agent_id="mara", call_id=caller.dial.call_sid)
        assert (await answer).outcome is Outcome.CONNECTED
        await again.wait("call.started")


async def test_an_agent_that_stays_away_takes_no_call() -> None:
    async with ringing() as (rig, agent, _, answer):
        began = clock()
        agent.drop()
        assert await answer == REJECTED
        assert clock() - began == pytest.approx(5, abs=0.3)
        assert rig.gateway.calls.expecting == 0


async def test_an_agent_that_says_goodbye_ends_the_ringing_at_once() -> None:
    async with ringing(no_agent_message="We are closed.") as (_, agent, _, answer):
        began = clock()
        await agent.socket.close(1000, "client_disconnect")
        assert await answer == Answer(Outcome.SAID, "We are closed.")
        assert clock() - began < 1


async def test_an_agent_that_is_removed_while_it_rings_is_told_nothing_more() -> None:
    async with ringing() as (_, agent, caller, answer):
        await agent.ask("agent.remove", "agent.removed", agent_id="mara")
        assert (await answer).outcome is Outcome.REJECTED
        await settled(agent)
        assert names(agent.of_call(caller.dial.call_sid)) == ["call.ringing"]


async def test_a_ringing_call_counts_against_the_limit() -> None:
    async with ringing(max_concurrent_calls=1) as (rig, agent, caller, answer):
        assert await (await rig.caller(OTHER_NUMBER)).ring() == BUSY
        await agent.send("call.reject", agent_id="mara", call_id=caller.dial.call_sid)
        await answer
        taken = await rig.caller(OTHER_NUMBER)
        assert (await taken.ring()).outcome is Outcome.CONNECTED
        await agent.wait("call.started", PATIENCE)


async def test_a_gateway_that_goes_down_refuses_what_rings() -> None:
    async with running() as rig:
        agent = await screening_agent(rig)
        caller = await rig.caller()
        answer = asyncio.create_task(caller.ring())
        await agent.wait("call.ringing")
        began = clock()
        await rig.gateway.stop()
        assert await answer == BUSY
        assert clock() - began < 2


async def test_the_voice_is_warm_before_a_ringing_call_is_taken() -> None:
    async with ringing() as (rig, agent, caller, answer):
        await asyncio.sleep(1)
        assert len(rig.vendors.voice.connections) == 1
        await agent.send("call.accept", agent_id="mara", call_id=caller.dial.call_sid)
        await answer
        await agent.wait("call.started")
        await agent.say(caller.dial.call_sid, "Good evening.", "m1")
        await agent.wait("bot.finished")
        assert len(rig.vendors.voice.connections) == 1


async def test_a_hundred_calls_ring_at_once_and_each_gets_its_own_answer() -> None:
    async with running() as rig:
        agent = await screening_agent(rig)
        sids = [f"CA{number:032d}" for number in range(100)]
        asking = {sid: asyncio.create_task(webhook(rig, form(CallSid=sid))) for sid in sids}
        for sid in sids:
            await agent.told(sid, "call.ringing")
        for place, sid in enumerate(sids):
            await agent.send("call.reject", agent_id="mara", call_id=sid, reason=("busy", "rejected")[place % 2])
        for place, sid in enumerate(sids):
            assert f'reason="{("busy", "rejected")[place % 2]}"' in (await asking[sid]).text
        assert not any(rig.leftovers().values())
