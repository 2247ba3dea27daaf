"""Who may speak for the carrier, and that nobody's mischief reaches anybody else's call."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from demo.dialling import Answer, Dial, DialFailed, Outcome, place_call
from tests.call_facts import (
    GREETING,
    SPOKEN,
    RawLine,
    about,
    form,
    raw_line,
    story,
    talk,
    webhook,
)
from tests.call_facts import faultless as faultless
from tests.phone_rig import NUMBER, running
from tests.virtual_time import event_loop_policy as event_loop_policy

pytestmark = pytest.mark.usefixtures("faultless")

TOKEN = "the-auth-token-of-the-account"
SIGNED: dict[str, Any] = {"twilio_auth_token": TOKEN, "public_url": "https://voice.example"}
SILENCE = b64encode(b"\xff" * 160).decode()


# --- signatures ---


@pytest.mark.proves("row-111")
async def test_a_signed_call_is_taken_by_webhook_and_stream() -> None:
    async with running(**SIGNED) as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER, auth_token=TOKEN, public_url=SIGNED["public_url"])
        assert (await place_call(dial)).stream_url == "wss://voice.example/twilio/stream"
        await talk(agent, await rig.dialling(dial))


@pytest.mark.parametrize("token", [None, "another token"])
async def test_a_webhook_without_our_signature_is_refused(token: str | None) -> None:
    async with running(**SIGNED) as rig:
        await rig.agent()
        dial = Dial(rig.http, NUMBER, auth_token=token, public_url=SIGNED["public_url"])
        with pytest.raises(DialFailed, match="403"):
            await place_call(dial)
        async with httpx2.AsyncClient(trust_env=False) as http:
            assert (await http.post(f"{rig.http}/twilio/status", data=form(CallStatus="completed"))).status_code == 403


@pytest.mark.parametrize("token", [None, "another token"])
async def test_a_stream_without_our_signature_is_refused_even_with_the_secret(token: str | None) -> None:
    async with running(**SIGNED) as rig:
        agent = await rig.agent()
        good = Dial(rig.http, NUMBER, auth_token=TOKEN, public_url=SIGNED["public_url"])
        answer = await place_call(good)
        stranger = Dial(rig.http, NUMBER, auth_token=token, public_url=SIGNED["public_url"], call_sid=good.call_sid)
        with pytest.raises(InvalidStatus) as refused:
            await raw_line(stranger, answer).__aenter__()
        assert refused.value.response.status_code == 403
        assert agent.count("call.started") == 0
        async with raw_line(good, answer) as line:
            await line.start()
            await agent.wait("call.started")


async def test_with_verification_turned_off_unsigned_calls_are_taken() -> None:
    async with running(twilio_validate_signature=False, **SIGNED) as rig:
        agent = await rig.agent()
        await talk(agent, await rig.caller())


async def test_without_a_token_nothing_comes_in_through_a_proxy() -> None:
    async with running() as rig:
        agent = await rig.agent()
        assert (await webhook(rig, form(), **{"X-Forwarded-For": "127.0.0.1"})).status_code == 403
        dial = Dial(rig.http, NUMBER)
        answer = await place_call(dial)
        with pytest.raises(InvalidStatus) as refused:
            await raw_line(dial, answer, {"X-Forwarded-For": "127.0.0.1"}).__aenter__()
        assert refused.value.response.status_code == 403
        await talk(agent, await rig.dialling(dial))


# --- the stream's secret ---


async def test_a_stream_needs_the_secret_of_its_own_call_and_needs_it_once() -> None:
    async with running() as rig:
        agent = await rig.agent()
        bystander, other = await rig.call(agent)
        dial = Dial(rig.http, NUMBER)
        answer = await place_call(dial)
        wrong = [{"key": "guessed"}, {"key": "ключ"}, {"key": ""}, {"call_id": other}, {"call_id": "CA0"}]
        for parameters in wrong:
            async with raw_line(dial, answer) as stranger:
                await stranger.start(**parameters)
                assert await stranger.closed() == 1008
        async with raw_line(dial, answer) as line, raw_line(dial, answer) as thief:
            await line.start()
            await agent.told(dial.call_sid, "call.started")
            await thief.start()
            assert await thief.closed() == 1008
            await agent.say(dial.call_sid, "Hello.", "m1")
            await agent.wait("bot.speaking")
        await agent.say(other, GREETING, "m2")
        await agent.wait("bot.finished", message_id="m2")
        assert story(about(agent, "m2")) == SPOKEN
        assert not bystander.is_over
        assert agent.count("call.started") == 2


async def test_a_stream_whose_agent_said_goodbye_meanwhile_is_turned_away() -> None:
    async with running() as rig:
        agent = await rig.agent()
        dial = Dial(rig.http, NUMBER)
        answer = await place_call(dial)
        await agent.socket.close(1000, "client_disconnect")
        await asyncio.sleep(0.1)
        async with raw_line(dial, answer) as line:
            await line.start()
            assert await line.closed() == 1008


async def test_a_stream_that_says_nothing_is_closed() -> None:
    async with running() as rig:
        dial = Dial(rig.http, NUMBER)
        answer = Answer(Outcome.CONNECTED, stream_url=rig.gateway.stream_url)
        async with raw_line(dial, answer) as line:
            asked = asyncio.get_running_loop().time()
            assert await line.closed() == 1008
            assert asyncio.get_running_loop().time() - asked < 10


# --- mischief beside a clean call ---


async def malformed(line: RawLine) -> None:
    for text in ("", "{", "[]", "null", '"media"', '{"event":7}', '{"event":"media"}', '{"event":"nobody knows"}'):
        await line.socket.send(text)
    await line.send("media", media={"track": "inbound", "payload": "%%%"})
    await line.send("media", media=[])
    await line.send("dtmf", dtmf={"digit": "99"})
    await line.send("mark", mark={"name": "never asked for"})
    await line.socket.send('{"event":"media","streamSid":"MZother","media":{"track":"inbound","payload":""}}')
    await line.start()


async def flood(line: RawLine) -> None:
    for number in range(6000):
        await line.send("media", media={"track": "inbound", "payload": SILENCE})
        if number % 500 == 0:
            await asyncio.sleep(0)


async def oversized(line: RawLine) -> None:
    await line.send("media", media={"track": "inbound", "payload": SILENCE * 5000})


async def binary(line: RawLine) -> None:
    await line.socket.send(b"\x00" * 160)


@pytest.mark.parametrize(
    ("mischief", "survives"), [(malformed, True), (flood, False), (oversized, False), (binary, False)]
)
async def test_mischief_on_one_line_stays_there(mischief: Any, survives: bool) -> None:
    async with running() as rig:
        agent = await rig.agent()
        caller, clean = await rig.call(agent)
        dial = Dial(rig.http, NUMBER)
        async with raw_line(dial, await place_call(dial)) as line:
            await line.start()
            await agent.told(dial.call_sid, "call.started")
            await agent.say(clean, GREETING, "m1")
            await caller.wait_bot_audible()
            try:
                await mischief(line)
            except ConnectionClosed:
                assert not survives
            if survives:
                await agent.say(dial.call_sid, "Still here.", "m2")
                await agent.told(dial.call_sid, "bot.speaking")
                assert agent.of_call(dial.call_sid)[-1]["event"] != "call.ended"
            else:
                assert (await agent.told(dial.call_sid, "call.ended"))["reason"] in ("disconnected", "hangup")
            await caller.wait_bot_done()
        over = await agent.told(dial.call_sid, "call.ended")
        assert agent.of_call(dial.call_sid)[-1] == over
        assert story(agent.of_call(clean)) == ["call.started", *SPOKEN]
        assert caller.heard_ms == pytest.approx(len(GREETING) * 60, abs=80)
