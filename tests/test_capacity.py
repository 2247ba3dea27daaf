"""Room for calls: what there is no room for is refused at once and counted, and live calls do not notice."""

from __future__ import annotations

import asyncio
import time

import httpx2
import pytest

from demo.dialling import Answer, Outcome
from tests.call_facts import LONG, form
from tests.phone_rig import NUMBER, PATIENCE, Rig, running

BUSY = Answer(Outcome.REJECTED, "busy")


async def refused(rig: Rig, reason: str) -> int:
    """How many calls the metrics say were refused for that reason."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{rig.http}/metrics")).text
    line = next((one for one in text.splitlines() if f'calls_refused_total{{reason="{reason}"}}' in one), "0 0")
    return round(float(line.split()[1]))


async def test_of_two_hundred_calls_at_once_exactly_as_many_as_allowed_come_in() -> None:
    async with running(max_concurrent_calls=50) as rig:
        await rig.agent()
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
            asking = [
                http.post(f"{rig.http}/twilio/voice", data=form(CallSid=f"CA{number:032d}")) for number in range(200)
            ]
            answers = [answer.text for answer in await asyncio.gather(*asking)]
            taken = [number for number, text in enumerate(answers) if "<Stream" in text]
            assert len(taken) == 50
            assert sum('<Reject reason="busy"' in text for text in answers) == 150
            assert rig.gateway.calls.expecting == 50
            assert await refused(rig, "capacity") == 150
            # Where one leaves there is room for one.
            left = {"CallSid": f"CA{taken[0]:032d}", "CallStatus": "canceled"}
            await http.post(f"{rig.http}/twilio/status", data=left)
            again = await http.post(f"{rig.http}/twilio/voice", data=form(CallSid="CA" + "f" * 32))
            assert "<Stream" in again.text
            for number in [*taken[1:]]:
                left = {"CallSid": f"CA{number:032d}", "CallStatus": "canceled"}
                await http.post(f"{rig.http}/twilio/status", data=left)
            await http.post(f"{rig.http}/twilio/status", data={"CallSid": "CA" + "f" * 32, "CallStatus": "canceled"})


async def test_a_call_that_rings_at_its_agent_takes_up_room() -> None:
    async with running(max_concurrent_calls=2) as rig:
        agent = await rig.agent("mara", "+12025550142")
        await agent.ask("channel.add", "channel.added", agent_id="mara", type="phone", ref=NUMBER, ringing=True)
        callers = [await rig.caller() for _ in range(2)]
        ringing = [asyncio.create_task(caller.ring()) for caller in callers]
        for caller in callers:
            await agent.told(caller.dial.call_sid, "call.ringing")
        assert await (await rig.caller("+12025550142")).ring() == BUSY
        for caller in callers:
            await agent.send("call.reject", agent_id="mara", call_id=caller.dial.call_sid)
        assert {(await answer).detail for answer in ringing} == {"busy"}
        assert (await (await rig.caller("+12025550142")).ring()).outcome is Outcome.CONNECTED
        await agent.wait("call.started", PATIENCE)


async def test_while_the_loop_lags_new_calls_are_refused_and_the_live_one_hears_no_gap() -> None:
    """In real time: the loop is really blocked, for less than what lies ready at the carrier."""
    async with running(max_loop_lag_ms=40) as rig:
        agent = await rig.agent()
        # The carrier is blocked with the gateway, so what it measures of the lead means nothing.
        caller = await rig.caller(lead=None)
        rig.callers.remove(caller)
        await caller.ring()
        call = (await agent.wait("call.started"))["call_id"]
        await agent.say(call, LONG, "m1")
        await caller.wait_bot_audible()
        for _ in range(8):
            time.sleep(0.12)  # noqa: ASYNC251 - that is the point
            await asyncio.sleep(0.02)
        assert rig.gateway.calls.lag > 0.04
        assert await (await rig.caller()).ring() == BUSY
        assert await refused(rig, "lag") >= 1
        await agent.wait("bot.finished", message_id="m1")
        assert agent.count("call.ended") == 0
        assert caller.heard_ms == pytest.approx(len(LONG) * 60, abs=80)
        # The average of a second forgets in a few.
        async with asyncio.timeout(20):
            while await (await rig.caller()).ring() == BUSY:  # noqa: ASYNC110 - the lag tells nobody
                await asyncio.sleep(0.2)
        await agent.wait("call.started")
        await caller.hang_up()
        await agent.told(call, "call.ended")


async def test_a_lag_of_no_live_call_refuses_nobody() -> None:
    async with running(max_loop_lag_ms=1) as rig:
        agent = await rig.agent()
        time.sleep(0.15)  # noqa: ASYNC251 - as above
        assert (await (await rig.caller()).ring()).outcome is Outcome.CONNECTED
        await agent.wait("call.started")
