"""Transferring the caller (behaviour §3.6), with the carrier's API simulated on its wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
import pytest

from demo.caller import SoftwareCaller
from demo.dialling import Dial
from tests.call_facts import LONG
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
async def a_call(to: str = NUMBER, **config: object) -> AsyncGenerator[Transfer]:
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
        agent = await rig.agent("mara", to, **config)
        dial = Dial(rig.http, to, auth_token=carrier.auth_token, public_url=PUBLIC)
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


@pytest.mark.proves("row-49")
@pytest.mark.parametrize(
    ("language", "phrase"),
    [("es", "Un momento, le comunico."), ("de-AT", "Einen Moment, ich verbinde Sie."), ("ja", "One moment")],
)
async def test_the_stock_phrase_is_in_the_calls_language(language: str, phrase: str) -> None:
    async with a_call(language=language) as it:
        await it.agent.send("call.forward", call_id=it.call, to=ELSEWHERE, announce=True)
        assert (await it.agent.wait("bot.speaking"))["text"].startswith(phrase)
        await it.agent.wait("call.ended", reason="forwarded")


async def test_a_message_comes_before_the_stock_phrase_and_without_both_nothing_is_said() -> None:
    async with a_call() as it:
        await it.agent.send("call.forward", call_id=it.call, to=ELSEWHERE, message="To the chef.", announce=True)
        assert (await it.agent.wait("bot.speaking"))["text"] == "To the chef."
        ended = await it.agent.wait("call.ended", reason="forwarded")
        assert it.agent.count("bot.speaking") == 1
        assert ended["messages"] == [{"role": "assistant", "content": "To the chef."}]
    async with a_call() as it:
        await it.agent.send("call.forward", call_id=it.call, to=ELSEWHERE)
        await it.agent.wait("call.ended", reason="forwarded")
        assert names(it.agent.of_call(it.call)) == ["call.started", "call.forwarded", "call.ended"]


async def test_speech_of_more_than_ten_seconds_is_cut_and_the_message_is_heard_whole() -> None:
    async with a_call() as it:
        loop = asyncio.get_running_loop()
        await it.agent.say(it.call, LONG + " " + LONG + " " + LONG, "m1")
        began = loop.time()
        await it.agent.send("call.forward", call_id=it.call, to=ELSEWHERE, message="To the chef.")
        assert (await it.agent.wait("bot.interrupted"))["message_id"] == "m1"
        assert loop.time() - began == pytest.approx(10, abs=0.5)
        assert (await it.agent.wait("bot.finished"))["text"] == "To the chef."
        await it.agent.wait("call.ended", reason="forwarded")


@pytest.mark.parametrize("to", ["", "kitchen", "12", "sip:", "sip:a b@c", "+1202555014200000"])
async def test_whom_nobody_could_call_is_no_target_and_the_caller_is_kept(to: str) -> None:
    async with a_call() as it:
        await it.agent.send("call.forward", call_id=it.call, to=to, message="I am connecting you.")
        refused = await it.agent.wait("error")
        assert (refused["code"], refused["call_id"]) == ("FORWARD_FAILED", it.call)
        assert refused["error"].startswith("to: ")
        assert it.agent.count("bot.speaking") == 0, "nobody is told of a transfer that cannot be"
        await it.agent.say(it.call, "Still here.", "m1")
        await it.agent.wait("bot.finished", message_id="m1")
        assert it.carrier.twiml == {}


async def test_a_sip_target_keeps_its_parameters_and_a_sip_call_names_no_number_as_its_own() -> None:
    async with a_call("sip:reception@acme.sip.twilio.com") as it:
        target = "sip:Chef@acme.example:5061;transport=tls"
        await it.agent.send("call.forward", call_id=it.call, to=target)
        assert (await it.agent.wait("call.forwarded"))["to"] == target
        assert f"<Sip>{target}</Sip>" in it.carrier.twiml[it.call]
        assert "callerId" not in it.carrier.twiml[it.call]
        assert f'action="{PUBLIC}/twilio/forward-status"' in it.carrier.twiml[it.call]


async def test_an_agent_that_hangs_up_while_a_transfer_waits_for_speech_means_it() -> None:
    async with a_call() as it:
        await it.agent.say(it.call, LONG, "m1")
        await it.agent.send("call.forward", call_id=it.call, to=ELSEWHERE)
        await it.agent.wait("bot.word", word_index=3)
        await it.agent.send("call.hangup", call_id=it.call)
        assert (await it.agent.wait("call.ended"))["reason"] == "client_hangup"
        await asyncio.sleep(12)
        assert it.carrier.twiml == {}
        assert "call.forwarded" not in names(it.agent.of_call(it.call))


async def test_the_outcome_of_a_transfer_may_come_late_and_twice_and_ends_the_callers_call() -> None:
    async with a_call() as it:
        await it.agent.send("call.forward", call_id=it.call, to=ELSEWHERE)
        await it.agent.wait("call.ended", reason="forwarded")
        form = {"CallSid": it.call, "AccountSid": it.carrier.account_sid, "DialCallStatus": "no-answer"}
        headers = it.caller.dial.signature(f"{PUBLIC}/twilio/forward-status", form)
        async with httpx2.AsyncClient(trust_env=False) as http:
            for _ in range(2):
                answer = await http.post(f"{it.rig.http}/twilio/forward-status", data=form, headers=headers)
                assert answer.status_code == 200
                assert "<Hangup" in answer.text
            assert (await http.post(f"{it.rig.http}/twilio/forward-status", data=form)).status_code == 403
