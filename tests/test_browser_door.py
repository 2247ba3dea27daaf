"""Who gets a voice session from `/webrtc/offer`, what is answered to the rest, and that no abuse disturbs a call."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import pairwise
from typing import Any, cast

import httpx2
import pytest
from aiortc.rtcsctptransport import SCTP_DATA_FIRST_FRAG, WEBRTC_STRING, DataChunk

from server.store.base import AgentKey
from tests.browser_rig import Browser, browsing, mint, post_offer, visit
from tests.phone_rig import KEY, Agent, Frame, Rig, names, running
from tests.simulators.deepgram_flux_engine import Say
from tests.speech import say_pcm, silence_pcm
from tests.virtual_time import event_loop_policy as event_loop_policy
from transports.webrtc.tuning import MAX_PIECES

OPEN: dict[str, Any] = {"webrtc_offers_per_ip": 0, "webrtc_ice_servers_per_ip": 0, "key_tokens_per_org": 0}


@asynccontextmanager
async def offering(rig: Rig) -> AsyncGenerator[str]:
    """An offer that could be answered."""
    page = Browser(rig)
    try:
        yield await page.offer()
    finally:
        await page.close()
        await asyncio.sleep(31)  # what never connects is forgotten by then


def refused(answer: httpx2.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["code"] == code
    assert isinstance(body["detail"], str)
    assert body["detail"] == body["error"]
    assert answer.headers["access-control-allow-origin"] == "*"
    return body["detail"]


async def get(rig: Rig, path: str, **more: Any) -> httpx2.Response:
    async with httpx2.AsyncClient() as http:
        return await http.get(rig.http + path, **more)


async def raw(rig: Rig, body: Any, content_type: str | None = "application/json") -> httpx2.Response:
    headers = {} if content_type is None else {"content-type": content_type}
    async with httpx2.AsyncClient(timeout=20) as http:
        return await http.post(f"{rig.http}/webrtc/offer", content=body, headers=headers)


def nothing_left(rig: Rig) -> bool:
    return len(rig.gateway.browsers) == rig.gateway.calls.expecting == 0


# --- ICE servers ---


@pytest.mark.proves("web-12", "row-181")
async def test_anybody_may_ask_for_ice_servers_and_gets_lists() -> None:
    turn = "turn:turn.example.org:3478?transport=udp"
    settings: dict[str, Any] = {
        "stun_urls": "stun:a.example.org:3478, stun:b.example.org",
        "turn_urls": turn,
        "turn_secret": "s3cret",
    }
    async with running(**settings) as rig:
        answer = await get(rig, "/webrtc/ice-servers")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["access-control-allow-origin"] == "*"
        body = answer.json()
        assert body["iceServers"] == body["ice_servers"]
        *stun, relay = body["iceServers"]
        assert stun == [{"urls": ["stun:a.example.org:3478"]}, {"urls": ["stun:b.example.org"]}]
        assert relay["urls"] == [turn]
        until, _, _ = relay["username"].partition(":")
        assert 0 < int(until) - rig.gateway.clock.wall() <= 600
        expected = base64.b64encode(hmac.digest(b"s3cret", relay["username"].encode(), "sha1")).decode()
        assert relay["credential"] == expected
        again = (await get(rig, "/webrtc/ice-servers")).json()["iceServers"][-1]
        assert again["username"] != relay["username"]


@pytest.mark.proves("web-12")
async def test_without_any_server_of_its_own_the_list_is_empty_and_still_an_object() -> None:
    async with running() as rig:
        answer = await get(rig, "/webrtc/ice-servers")
        assert answer.json() == {"iceServers": [], "ice_servers": []}


@pytest.mark.proves("web-38")
async def test_who_asks_too_often_is_told_when_to_come_again() -> None:
    async with running(webrtc_offers_per_ip=3, webrtc_ice_servers_per_ip=3) as rig:
        for _ in range(3):
            assert (await get(rig, "/webrtc/ice-servers")).status_code == 200
            assert (await raw(rig, "{}")).status_code == 400
        answers = [await get(rig, "/webrtc/ice-servers"), await raw(rig, "{}")]
        for answer in answers:
            refused(answer, 429, "RATE_LIMITED")
            assert int(answer.headers["retry-after"]) >= 1


# --- tokens ---


@pytest.mark.proves("web-14", "row-179")
async def test_one_token_opens_one_session_however_many_ask_at_once() -> None:
    async with running(**OPEN) as rig:
        await rig.agent()
        token = await mint(rig)
        async with offering(rig) as sdp:
            answers = await asyncio.gather(*(post_offer(rig, sdp, token) for _ in range(20)))
            assert sorted(answer.status_code for answer in answers) == [200] + [401] * 19
            refused(await post_offer(rig, sdp, token), 401, "UNAUTHORIZED")


@pytest.mark.proves("web-16", "row-182")
async def test_a_chat_token_opens_no_voice_session_and_stays_unused() -> None:
    async with running() as rig:
        await rig.agent()
        headers = {"Authorization": f"Bearer {KEY}"}
        minted = (await get(rig, "/chat/token", params={"agent_id": "mara"}, headers=headers)).json()["token"]
        async with offering(rig) as sdp:
            refused(await post_offer(rig, sdp, minted), 401, "UNAUTHORIZED")
        grant = await rig.gateway.tokens.consume("chat", minted, None, None)
        assert grant.agent.slug == "mara"


@pytest.mark.proves("web-17", "row-182")
@pytest.mark.parametrize("name", ["agent_id", "agent"])
async def test_a_token_of_one_agent_leads_to_no_other(name: str) -> None:
    async with running() as rig:
        agent = await rig.agent()
        await agent.ask("agent.create", "agent.created", agent_id="other", voice="elevenlabs:v", stt="deepgram-flux")
        token = await mint(rig)
        async with offering(rig) as sdp:
            refused(await post_offer(rig, sdp, token, **{name: "other"}), 403, "FORBIDDEN")
            assert (await post_offer(rig, sdp, token, **{name: "Mara"})).status_code == 200
        assert "call.started" not in names(agent.frames)


@pytest.mark.proves("web-18", "row-182")
async def test_a_token_of_one_origin_is_no_good_to_pages_of_another() -> None:
    async with running() as rig:
        await rig.agent(allowed_origins=["https://app.site.com"])
        minted: list[str] = []
        for _ in range(2):
            headers = {"Origin": "https://app.site.com"}
            minted.append(
                (await get(rig, "/webrtc/token", params={"agent_id": "mara"}, headers=headers)).json()["token"]
            )
        async with offering(rig) as sdp:
            other = {"Origin": "https://other.io"}
            refused(await post_offer(rig, sdp, minted[0], headers=other), 403, "ORIGIN_NOT_ALLOWED")
            assert (await post_offer(rig, sdp, minted[0])).status_code == 200, "apps send no origin"
            same = {"Origin": "https://app.site.com"}
            assert (await post_offer(rig, sdp, minted[1], headers=same)).status_code == 200


async def test_an_agent_that_went_offline_is_not_reached() -> None:
    async with running() as rig:
        agent = await rig.agent()
        token = await mint(rig)
        agent.drop()
        await asyncio.sleep(0.5)
        async with offering(rig) as sdp:
            detail = refused(await post_offer(rig, sdp, token), 404, "AGENT_OFFLINE")
        assert detail == "Agent 'mara' is not online"
        assert nothing_left(rig)


# --- bad input ---


NO_OFFERS: list[tuple[bytes, int]] = [
    (b"", 400),
    (b"{", 400),
    (b"[]", 400),
    (b"null", 400),
    (b'"x"', 400),
    (b"{}", 400),
    (b"\xff\xfe", 400),
    (b"[" * 100_000, 400),
    (json.dumps({"sdp": "x"}).encode(), 400),
    (json.dumps({"sdp": 7, "token": "t"}).encode(), 400),
    (json.dumps({"sdp": None, "token": None}).encode(), 400),
    (json.dumps({"sdp": "x", "token": "t", "type": "answer"}).encode(), 400),
    (json.dumps({"sdp": "x", "token": "t", "config": []}).encode(), 400),
    (json.dumps({"sdp": "x", "token": "t", "metadata": "m"}).encode(), 400),
    (json.dumps({"sdp": "garbage", "token": "t"}).encode(), 400),
    (json.dumps({"sdp": "v=0\r\n", "token": "t"}).encode(), 400),
    (json.dumps({"sdp": "v=0" + "x" * 65 * 1024, "token": "t"}).encode(), 413),
    (json.dumps({"sdp": "x", "token": "t", "config": {"voice": "x" * 9000}}).encode(), 413),
    (json.dumps({"sdp": "x", "token": "t", "metadata": {"x": "x" * 2100}}).encode(), 413),
    (b" " * (257 * 1024), 413),
]


@pytest.mark.proves("web-19")
async def test_a_body_that_is_no_offer_is_refused() -> None:
    async with running(**OPEN) as rig:
        for body, status in NO_OFFERS:
            refused(await raw(rig, body), status, "BAD_REQUEST" if status == 400 else "TOO_LARGE")
        assert nothing_left(rig)


@pytest.mark.proves("web-19")
async def test_an_offer_comes_as_json_and_says_so() -> None:
    async with running() as rig:
        for content_type in (None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"):
            refused(await raw(rig, b"{}", content_type), 400, "BAD_REQUEST")


async def test_a_charset_is_no_obstacle() -> None:
    async with running() as rig:
        await rig.agent()
        async with offering(rig) as sdp:
            body = json.dumps({"sdp": sdp, "type": "offer", "token": await mint(rig)})
            assert (await raw(rig, body, "application/json; charset=utf-8")).status_code == 200


@pytest.mark.proves("web-19")
async def test_a_huge_body_is_refused_before_it_has_come() -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 64 * 1024
            yield b" " * (64 * 1024)
            await asyncio.sleep(0)

    async with running() as rig:
        try:
            answer = await raw(rig, body())
            assert answer.status_code == 413
        except httpx2.HTTPError:
            pass  # the gateway closed while we were still sending
        assert sent < 16 * 1024 * 1024


@pytest.mark.proves("web-19")
async def test_an_offer_that_breaks_in_the_stack_costs_its_token_and_leaves_nothing() -> None:
    async with running() as rig:
        await rig.agent()
        async with offering(rig) as sdp:
            broken = [
                sdp.replace("a=fingerprint:sha-256 ", "a=fingerprint:nonsense"),
                sdp.replace("a=setup:actpass", "a=setup:nonsense"),
                sdp.replace("webrtc-datachannel", "\0"),
                sdp.replace("a=mid:0", "a=mid:" + "x" * 5000),
                sdp.replace("opus/48000/2", "opus/48000/2/9/x"),
                sdp.replace("a=sctp-port:5000", "a=sctp-port:x"),
                sdp.replace("a=rtpmap:", "a=rtpmap:x"),
                sdp.replace("a=extmap:", "a=extmap:x"),
                sdp.replace("m=audio 9", "m=audio"),
                sdp.replace("m=audio", "m=audio\0"),
            ]
            for text in broken:
                answer = await post_offer(rig, text)
                assert answer.status_code in (200, 400), answer.text
                if answer.status_code == 400:
                    refused(answer, 400, "BAD_REQUEST")
        await asyncio.sleep(31)
        assert nothing_left(rig)


@pytest.mark.proves("web-29")
@pytest.mark.parametrize("kind", ["none", "local"])
async def test_an_offer_without_a_usable_address_is_answered_at_once_and_connects(kind: str) -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent()
        page = Browser(rig)
        stack.push_async_callback(page.close)
        lines = (await page.offer()).split("\r\n")
        if kind == "none":
            lines = [line for line in lines if not line.startswith("a=candidate")]
        else:
            for place, line in enumerate(lines):
                if line.startswith("a=candidate"):
                    parts = line.split(" ")
                    lines[place] = " ".join([*parts[:4], "5c2f63a0-6b1b-4a7e-9f0a-3e2b5b6f7a8b.local", *parts[5:]])
        loop = asyncio.get_running_loop()
        asked = loop.time()
        answer = await post_offer(rig, "\r\n".join(lines))
        assert answer.status_code == 200
        assert loop.time() - asked < 6
        await page.accept(answer.json())
        await agent.wait("call.started")


# --- room ---


async def test_a_session_more_than_an_agent_may_have_is_refused_and_room_comes_back() -> None:
    async with running(webrtc_sessions_per_agent=1) as rig:
        agent = await rig.agent()
        async with browsing(rig), offering(rig) as sdp:
            refused(await post_offer(rig, sdp), 503, "SERVER_AT_CAPACITY")
        await agent.wait("call.ended")
        async with browsing(rig):
            pass


@pytest.mark.parametrize("limit", ["max_concurrent_calls", "webrtc_sessions_per_org"])
async def test_a_session_more_than_the_server_or_the_organisation_may_have_is_refused(limit: str) -> None:
    async with running(**cast("dict[str, Any]", {limit: 2})) as rig:
        await rig.agent()
        async with browsing(rig), browsing(rig), offering(rig) as sdp:
            refused(await post_offer(rig, sdp), 503, "SERVER_AT_CAPACITY")


async def test_a_session_for_which_no_port_is_free_is_refused_and_room_comes_back() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with running(webrtc_udp_ports=f"{port}-{port}") as rig:
        agent = await rig.agent()
        async with browsing(rig), offering(rig) as sdp:
            refused(await post_offer(rig, sdp), 503, "SERVER_AT_CAPACITY")
        await agent.wait("call.ended")
        async with browsing(rig):
            pass
        await agent.wait("call.ended")
        assert nothing_left(rig)


# --- abuse, while a call goes on ---


@asynccontextmanager
async def undisturbed(rig: Rig, agent: Agent) -> AsyncGenerator[None]:
    """A clean call goes on meanwhile: it is told a whole sentence, heard without a gap, and understood."""
    async with AsyncExitStack() as stack:
        page, call = await visit(rig, agent, stack)

        async def talk() -> tuple[Frame, Frame]:
            await agent.say(call, "One two three four five six seven eight nine ten eleven twelve.", "clean")
            finished = await page.wait("bot.finished", message_id="clean")
            page.say(say_pcm("clean and clear") + silence_pcm(900))
            return finished, await page.wait("turn.end")

        talking = asyncio.create_task(talk())
        yield
        finished, end = await talking
        assert end["text"] == "clean and clear"
        words = [frame["word"] for frame in page.frames if frame["event"] == "bot.word"]
        assert " ".join(words) == finished["text"]
        arrivals = [at for at, _ in page.heard.pieces]
        assert max(later - earlier for earlier, later in pairwise(arrivals)) < 0.1
        assert page.heard.audible()


@pytest.mark.proves("web-38")
async def test_a_flood_of_bad_offers_disturbs_no_call() -> None:
    async with running([Say("clean and clear")], **OPEN) as rig:
        agent = await rig.agent()
        async with undisturbed(rig, agent), httpx2.AsyncClient(timeout=20) as http:
            bodies = [b"garbage", b" " * 300_000, json.dumps({"sdp": "v=0\r\nm=audio", "token": "t"}).encode()]
            for number in range(300):
                url = f"{rig.http}/webrtc/offer"
                answer = await http.post(url, content=bodies[number % 3], headers={"content-type": "application/json"})
                assert answer.status_code in (400, 413)
        assert len(rig.gateway.browsers) <= 1


@pytest.mark.proves("web-38")
async def test_a_hundred_offers_that_never_connect_disturb_no_call_and_leave_nothing() -> None:
    async with running([Say("clean and clear")], **OPEN) as rig:
        agent = await rig.agent()
        async with undisturbed(rig, agent), offering(rig) as sdp, httpx2.AsyncClient(timeout=20) as http:
            for _ in range(100):
                minted = await rig.gateway.tokens.mint("webrtc", AgentKey("org_main", "mara"), {}, None)
                body = {"sdp": sdp, "type": "offer", "token": minted.token}
                answer = await http.post(f"{rig.http}/webrtc/offer", json=body)
                assert answer.status_code == 200
            assert len(rig.gateway.browsers) == 101
        await asyncio.sleep(32)
        assert nothing_left(rig)
        assert names(agent.frames).count("call.started") == 1


@pytest.mark.proves("web-38")
@pytest.mark.parametrize("frame", ["x" * 20_000, '{"action":"set_context","key":"k","value":"v"}', "ping", "\0"])
async def test_a_page_that_floods_its_channel_is_let_go_and_disturbs_no_other(frame: str) -> None:
    async with running([Say("clean and clear")]) as rig:
        agent = await rig.agent()
        async with undisturbed(rig, agent), browsing(rig) as page:
            await agent.wait("call.started", call_id=page.call_id)
            for _ in range(40):
                if page.closed.is_set():
                    break
                for _ in range(25):
                    if page.channel is not None and page.channel.readyState == "open":
                        page.channel.send(frame)
                await asyncio.sleep(0.1)
            ended = await agent.told(page.call_id, "call.ended")
            assert ended["reason"] == "disconnected"


async def test_a_page_that_opens_channel_after_channel_is_let_go() -> None:
    async with running([Say("clean and clear")]) as rig:
        agent = await rig.agent()
        async with undisturbed(rig, agent), browsing(rig) as page:
            await agent.wait("call.started", call_id=page.call_id)
            for number in range(30):
                page.connection.createDataChannel(f"other-{number}")
            await agent.told(page.call_id, "call.ended")


@pytest.mark.parametrize("attack", ["a message without end", "a message without beginning", "stream after stream"])
async def test_a_page_whose_messages_never_become_whole_is_let_go(attack: str) -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent()
        page, call = await visit(rig, agent, stack)
        await page.send("ping")
        sctp = page.connection.sctp
        assert sctp is not None
        for piece in range(2 * MAX_PIECES):
            chunk = DataChunk(
                flags=SCTP_DATA_FIRST_FRAG if attack != "a message without beginning" and not piece else 0
            )
            chunk.tsn = sctp._local_tsn + 2 + piece * (2 if attack == "a message without beginning" else 1)  # pyright: ignore[reportPrivateUsage]
            chunk.stream_id = 2 * piece + 100 if attack == "stream after stream" else 100
            chunk.protocol, chunk.user_data = WEBRTC_STRING, b"x"
            with suppress(ConnectionError):
                await sctp._send_chunk(chunk)  # pyright: ignore[reportPrivateUsage]
            if piece % 20 == 0:
                await asyncio.sleep(0.002)
        assert (await agent.wait("call.ended", call_id=call))["reason"] == "disconnected"


async def test_a_dead_page_disturbs_no_other() -> None:
    async with running([Say("clean and clear")]) as rig:
        agent = await rig.agent()
        async with AsyncExitStack() as stack:
            for _ in range(5):
                page = Browser(rig)
                stack.push_async_callback(page.close)
                await page.connect()
                await page.vanish()
            async with undisturbed(rig, agent):
                await asyncio.sleep(1)
            await asyncio.sleep(20)
            reasons = [frame["reason"] for frame in agent.frames if frame["event"] == "call.ended"]
            assert sorted(reasons) == ["client_hangup"] + ["connection_lost"] * 5


# --- what could spoil the agent's own connection ---


async def test_bytes_that_are_no_text_never_reach_the_agent() -> None:
    async with running() as rig, offering(rig) as sdp:
        agent = await rig.agent()
        token = await mint(rig)
        body = json.dumps({"sdp": sdp, "type": "offer", "token": token, "metadata": {"page": "BAD"}}).encode()
        refused(await raw(rig, body.replace(b"BAD", b"\xff")), 400, "BAD_REQUEST")
        assert (await raw(rig, body.replace(b"BAD", b"/x"))).status_code == 200, "the token is good still"
        await agent.ask("ping", "pong")


async def test_settings_nested_without_end_are_dropped() -> None:
    async with running() as rig, offering(rig) as sdp:
        await rig.agent()
        deep = json.loads("[" * 900 + "]" * 900)
        answer = await post_offer(rig, sdp, config={"voice": deep, "language": "es"})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("config", [b'{"voice":"\xff"}', b'{"voice":' + b"[" * 900 + b"]" * 900 + b"}"])
async def test_settings_that_cannot_be_read_do_not_end_a_session(config: bytes) -> None:
    async with running() as rig, AsyncExitStack() as stack:
        agent = await rig.agent()
        page, _ = await visit(rig, agent, stack)
        for frame in (b'{"action":"ping"}', b'{"action":"configure",' + config[1:], b'{"action":"ping"}'):
            await page.send(frame)
            if b"ping" in frame:
                await page.wait("pong")
