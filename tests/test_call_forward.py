"""Transferring the caller (behaviour §3.6), with the carrier's API simulated on its wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from demo.caller import SoftwareCaller
from demo.dialling import Dial
from tests.phone_rig import NUMBER, Agent, Rig, names, running
from tests.simulators.twilio_rest import SimulatedTwilioRest
from tests.virtual_time import event_loop_policy as event_loop_policy

PUBLIC = "https://voice.example"
ELSEWHERE = "+12025550142"


@dataclass
class Transfer:
    rig: Rig
    agent: Agent
    caller: SoftwareCaller
    call: str
    carrier: SimulatedTwilioRest


@asynccontextmanager
async def a_call() -> AsyncGenerator[Transfer]:
    """A signed call whose carrier can be asked to transfer it."""
    async with (
        SimulatedTwilioRest().running() as carrier,
        running(
            public_url=PUBLIC,
            twilio_account_sid=carrier.account_sid,
            twilio_auth_token=carrier.auth_token,
            twilio_base_url=carrier.base_url,
        ) as rig,
    ):
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER, auth_token=carrier.auth_token, public_url=PUBLIC)
        carrier.calls[dial.call_sid] = "in-progress"
        caller = await rig.dialling(dial)
        await caller.ring()
        call = (await agent.wait("call.started"))["call_id"]
        yield Transfer(rig, agent, caller, call, carrier)


@pytest.mark.proves("ws-46", "row-49")
async def test_what_was_said_before_the_transfer_is_heard_to_its_end() -> None:
    async with a_call() as it:
        await it.agent.say(it.call, "I will connect you with the kitchen.", "m1")
        await it.agent.send("call.forward", call_id=it.call, to=ELSEWHERE)
        await it.agent.wait("call.ended", reason="forwarded")
        told = names(it.agent.of_call(it.call))
        assert told[-4:] == ["message.confirmed", "bot.finished", "call.forwarded", "call.ended"]
        assert f"<Number>{ELSEWHERE}</Number>" in it.carrier.twiml[it.call]
        assert f'callerId="{NUMBER}"' in it.carrier.twiml[it.call]
        await it.caller.wait_ended()


async def test_a_message_or_a_stock_phrase_announces_the_transfer_to_the_caller() -> None:
    async with a_call() as it:
        await it.agent.send("call.forward", call_id=it.call, to="sip:chef@acme.example", announce=True)
        assert (await it.agent.wait("bot.speaking"))["text"] == "One moment, I am connecting you."
        await it.agent.wait("call.ended", reason="forwarded")
        assert "<Sip>sip:chef@acme.example</Sip>" in it.carrier.twiml[it.call]


async def test_a_transfer_that_the_carrier_refuses_leaves_the_call_as_it_was() -> None:
    async with a_call() as it:
        it.carrier.calls[it.call] = "completed"
        await it.agent.send("call.forward", call_id=it.call, to=ELSEWHERE)
        refused = await it.agent.wait("error")
        assert refused["code"] == "FORWARD_FAILED"
        assert refused["call_id"] == it.call
        await it.agent.say(it.call, "Sorry, nobody is there.", "m1")
        await it.agent.wait("bot.finished", message_id="m1")


async def test_a_caller_who_hangs_up_during_a_transfer_that_fails_has_hung_up() -> None:
    async with a_call() as it:
        it.carrier.outages = [503, 503, 503]
        await it.agent.send("call.forward", call_id=it.call, to=ELSEWHERE)
        await asyncio.sleep(0)
        await it.caller.hang_up()
        ended = await it.agent.wait("call.ended")
        assert ended["reason"] == "hangup"
        assert "call.forwarded" not in names(it.agent.of_call(it.call))


async def test_without_an_account_a_transfer_is_not_possible_and_the_call_goes_on() -> None:
    async with running() as rig:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await agent.send("call.forward", call_id=call, to=ELSEWHERE)
        await agent.say(call, "Still here.", "m1")
        await agent.wait("bot.finished", message_id="m1")
