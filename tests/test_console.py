"""The console's doors without a browser: who may see what, and what a page is told and kept from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.auth import Source, digest_of
from tests.call_scenes import take_turn
from tests.phone_rig import KEY, Frame, Rig, running
from tests.simulators.deepgram_flux_engine import Say
from tests.virtual_time import event_loop_policy as event_loop_policy

OTHER = "pk_other_organisation_01"


@dataclass
class Feed:
    """A page's socket, read as a page reads it."""

    socket: ClientConnection
    told: list[Frame] = field(default_factory=list[Frame])

    async def ask(self, **request: object) -> None:
        await self.socket.send(json.dumps(request))

    async def wait(self, kind: str, **facts: object) -> Frame:
        """The next message of that kind with these members."""
        async with asyncio.timeout(10):
            while True:
                message = json.loads(await self.socket.recv())
                self.told.append(message)
                if message["kind"] == kind and all(message.get(name) == value for name, value in facts.items()):
                    return message

    async def event(self, name: str) -> Frame:
        """The next event of that name of the call that is followed."""
        while True:
            message = await self.wait("event")
            if message["event"]["event"] == name:
                return message["event"]


@asynccontextmanager
async def feed(rig: Rig, **headers: str) -> AsyncGenerator[Feed]:
    url = f"ws://127.0.0.1:{rig.port}/console/feed"
    async with connect(url, additional_headers=headers, max_size=None) as socket:
        yield Feed(socket)


async def refused(rig: Rig, **headers: str) -> int:
    """The status with which the feed does not open."""
    with pytest.raises(InvalidStatus) as refusal:
        async with feed(rig, **headers):
            pass
    return refusal.value.response.status_code


async def signed_in(rig: Rig, key: str = KEY, **headers: str) -> str:
    """The cookie of somebody who has signed in."""
    async with httpx2.AsyncClient(base_url=rig.http, trust_env=False) as client:
        answer = await client.post("/console/session", json={"key": key}, headers=headers)
        assert answer.status_code == 200, answer.text
        assert key not in answer.text + str(answer.headers)
        return answer.headers["set-cookie"].partition(";")[0]


async def session(rig: Rig, **headers: str) -> bool:
    async with httpx2.AsyncClient(base_url=rig.http, trust_env=False) as client:
        return (await client.get("/console/session", headers=headers)).json()["signed_in"]


async def test_nobody_has_to_sign_in_on_the_machine_of_a_gateway_with_its_own_key() -> None:
    async with running() as rig, feed(rig) as page:
        assert (await page.wait("hello"))["open"] is True
        assert await session(rig)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "203.0.113.7"},
        {"Forwarded": "for=203.0.113.7"},
        {"Via": "1.1 proxy"},
        {"X-Real-IP": "203.0.113.7"},
        {"Host": "rebound.test"},
        {"Host": "rebound.test", "Origin": "http://rebound.test"},
        {"Host": "[::1"},
        {"Origin": "https://elsewhere.test"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
async def test_nobody_is_let_in_without_a_key_through_a_proxy_another_name_or_another_page(
    headers: dict[str, str],
) -> None:
    async with running() as rig:
        assert not await session(rig, **headers)
        async with httpx2.AsyncClient(base_url=rig.http, trust_env=False) as client:
            asked = {"agent": "mara", "channel": "webrtc"}
            assert (await client.post("/console/token", json=asked, headers=headers)).status_code == 401


@pytest.mark.parametrize("headers", [{"Origin": "https://elsewhere.test"}, {"X-Forwarded-For": "203.0.113.7"}], ids=str)
async def test_the_feed_opens_to_nobody_else_either(headers: dict[str, str]) -> None:
    async with running() as rig:
        assert await refused(rig, **headers) in (401, 403)


@pytest.mark.parametrize("settings", [{"public_url": "https://voice.example.org"}, {"api_keys": KEY}], ids=str)
async def test_where_an_address_or_keys_were_given_out_everybody_signs_in(settings: dict[str, Any]) -> None:
    async with running(**settings) as rig:
        assert not await session(rig)
        assert await refused(rig) in (401, 403)
        cookie = await signed_in(rig)
        assert await session(rig, Cookie=cookie)
        assert not await session(rig, Cookie=cookie, Origin="https://elsewhere.test")
        async with feed(rig, Cookie=cookie) as page:
            assert (await page.wait("hello"))["open"] is False


async def test_signing_in_is_for_the_consoles_own_page_and_for_good_keys() -> None:
    async with (
        running(api_keys=KEY) as rig,
        httpx2.AsyncClient(base_url=rig.http, trust_env=False) as client,
    ):
        forged = await client.post("/console/session", json={"key": KEY}, headers={"Origin": "https://elsewhere.test"})
        assert forged.status_code == 403
        assert "set-cookie" not in forged.headers
        assert (await client.post("/console/session", json={"key": "pk_wrong_0001"})).status_code == 401
        assert (await client.post("/console/session", content=b"{")).status_code == 400
        assert (await client.post("/console/session", content=b"x" * 5000)).status_code == 413
        for _ in range(200):
            if (await client.post("/console/session", json={"key": "pk_wrong_0001"})).status_code == 429:
                return
            began = asyncio.get_running_loop().time()
            await client.post("/console/session", json={"key": "pk_wrong_0001"})
            if asyncio.get_running_loop().time() - began >= 1:
                return
        raise AssertionError("guessing is never slowed down")


async def test_the_cookie_is_for_this_page_and_for_https_where_there_is_https() -> None:
    async with (
        running(public_url="https://voice.example.org") as rig,
        httpx2.AsyncClient(base_url=rig.http, trust_env=False) as client,
    ):
        answer = await client.post("/console/session", json={"key": KEY})
        flags = {flag.strip().lower() for flag in answer.headers["set-cookie"].split(";")[1:]}
        assert {"httponly", "secure", "samesite=strict", "path=/console"} <= flags


async def test_signing_out_and_revoking_the_key_end_the_visit() -> None:
    async with running(api_keys=KEY) as rig:
        for end in ("out", "revoked"):
            cookie = await signed_in(rig)
            async with feed(rig, Cookie=cookie) as page:
                await page.wait("hello")
                if end == "out":
                    async with httpx2.AsyncClient(base_url=rig.http, trust_env=False) as client:
                        await client.delete("/console/session", headers={"Cookie": cookie})
                else:
                    rig.gateway.organisations.keys.learn(Source.ENVIRONMENT, [])
                with pytest.raises(ConnectionClosed):
                    await page.wait("never")
                assert page.socket.close_code == 4401
            assert not await session(rig, Cookie=cookie)


async def test_calls_of_another_organisation_are_never_seen_nor_hung_up() -> None:
    async with running(api_keys=KEY) as rig:
        owners = [(digest_of(KEY), "org_main"), (digest_of(OTHER), "org_other")]
        rig.gateway.organisations.keys.learn(Source.ENVIRONMENT, owners)
        agent = await rig.agent()
        _, call = await rig.call(agent)
        async with feed(rig, Cookie=await signed_in(rig, OTHER)) as page:
            await page.ask(follow=call)
            await page.ask(hang_up=call)
            await page.wait("health")
            await page.wait("health")
            assert call not in json.dumps(page.told)
            assert "mara" not in json.dumps(page.told)
        assert rig.gateway.registry.calls.find("org_main", call) is not None


async def test_a_page_that_comes_late_sees_all_that_was_said() -> None:
    async with running([Say("a table for two")]) as rig:
        agent = await rig.agent(analysis={"send_audio_metrics": True, "send_turn_audio": True})
        caller, call = await rig.call(agent)
        end = await take_turn(agent, caller, "a table for two")
        await agent.say(call, "For two, and on which day, if I may ask you?", "m1", end["message_id"])
        await agent.wait("bot.word")
        async with feed(rig) as page:
            listed = (await page.wait("calls"))["calls"]
            assert [(one["call_id"], one["from"], one["turns"]) for one in listed] == [(call, "+15550100199", 1)]
            await page.ask(follow=call)
            transcript = await page.wait("transcript")
            kinds = [event["event"] for event in transcript["events"]]
            assert kinds[0] == "call.started"
            assert [kind for kind in kinds if kind in ("user.message", "turn.end", "bot.speaking")] == [
                "user.message",
                "turn.end",
                "bot.speaking",
            ]
            assert "bot.word" in kinds, "what is being said now"
            await page.event("bot.word")
            assert (await page.wait("level", source="bot", speech=True))["db"] > -60
            await page.event("bot.finished")
            await caller.hang_up()
            ended = await page.event("call.ended")
            assert ended["messages"] == []
        async with feed(rig) as page:
            await page.ask(follow=call)
            transcript = await page.wait("transcript")
            assert len(transcript["turns"]) == 1
            text = json.dumps(transcript)
            assert "For two, and on which day" in text
            assert not any(kind in text for kind in ("bot.word", "turn.audio", "audio.metrics", "user.speaking"))


async def test_a_call_is_hung_up_from_the_page() -> None:
    async with running() as rig, feed(rig) as page:
        agent = await rig.agent()
        _, call = await rig.call(agent)
        await page.ask(hang_up=call)
        assert (await agent.wait("call.ended"))["reason"] == "hangup"
        await page.wait("call")


async def test_nonsense_from_a_page_harms_nobody() -> None:
    async with running() as rig, feed(rig) as page:
        deep = '{"x": ' + "[" * 5000
        for nonsense in ("", "{", "[]", deep, '{"follow": 7}', '{"hang_up": "nobody"}', '{"follow": "nobody"}'):
            await page.socket.send(nonsense)
        for _ in range(3):
            await page.wait("health")
        assert page.socket.close_code is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"key": 7}', 400),
        (b'{"key": "\xff"}', 400),
        (b'{"x": ' + b"[" * 4000, 400),
        (b'{"key": "' + b"x" * 5000 + b'"}', 413),
    ],
)
async def test_nonsense_instead_of_a_key_is_a_bad_request(body: bytes, status: int) -> None:
    async with running() as rig, httpx2.AsyncClient(base_url=rig.http, trust_env=False) as client:
        assert (await client.post("/console/session", content=body)).status_code == status
        assert (await client.post("/console/token", content=body)).status_code == status


async def test_only_so_many_conversations_are_remembered() -> None:
    async with running(console_recent_calls=2) as rig:
        agent = await rig.agent()
        calls: list[str] = []
        for _ in range(4):
            caller, call = await rig.call(agent)
            calls.append(call)
            await caller.hang_up()
            await agent.wait("call.ended")
        async with feed(rig) as page:
            listed = [one["call_id"] for one in (await page.wait("calls"))["calls"]]
            assert listed[-2:] == calls[-2:]
            assert len(listed) <= 3
