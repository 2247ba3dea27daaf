"""An attacker at the token routes: floods, smuggled headers, what can be learnt, and what is left in the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server.tokens import TokenRefused
from tests.door_rig import KEY_A, KEY_B, PUBLISHABLE_A, Door, Overheard, opened
from tests.virtual_time import event_loop_policy as event_loop_policy

APP = "https://app.site.com"
EVIL = "https://evil.io"


@pytest.fixture
async def door() -> AsyncGenerator[Door]:
    async with opened() as door:
        yield door


async def raw(door: Door, *lines: str) -> tuple[int, str]:
    """Status and head of the answer to a request written by hand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    try:
        writer.write("\r\n".join([*lines, "Host: gateway", "Connection: close", "", ""]).encode("latin-1"))
        answer = (await reader.read()).decode()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return int(answer.split(" ", 2)[1]), answer


MINT = "GET /webrtc/token?agent_id=mara HTTP/1.1"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((f"Origin: {APP}",), 200),
        ((f"Origin: {APP}", f"Origin: {EVIL}"), 403),
        ((f"Origin: {EVIL}", f"Origin: {APP}"), 403),
        ((f"Origin: {APP}", f"Origin: {APP}"), 403),
        ((f"Origin: {EVIL}", f"origin:{APP}"), 403),
        ((f"Origin: {APP}, {EVIL}",), 403),
        ((f"Origin: {APP} ",), 200),
        (("Origin:",), 403),
        ((f"Origin: {APP}\x00",), 400),
        ((f"Referer: {APP}/page",), 401),
        ((f"X-Origin: {APP}",), 401),
        ((f"X-Forwarded-Host: {APP}",), 401),
        (("Origin: null", "Sec-Fetch-Site: same-origin"), 403),
        (("Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"), 403),
        ((f"Origin: {APP}", "Authorization:"), 200),
        ((f"Origin: {APP}", "Authorization: Bearer"), 401),
        ((f"Origin: {APP}", "Authorization: Bearer "), 401),
        ((f"Origin: {APP}", f"Authorization: Bearer {KEY_A},{KEY_B}"), 401),
        ((f"Origin: {APP}", f"Authorization: Bearer {KEY_A}", f"X-API-Key: {KEY_B}"), 401),
        ((f"Origin: {APP}", "X-API-Key:"), 401),
        ((f"X-API-Key: {PUBLISHABLE_A}",), 401),
        ((f"Origin: {EVIL}", f"X-API-Key: {PUBLISHABLE_A}"), 403),
        ((f"Authorization: Bearer {KEY_A}", f"Origin: {EVIL}"), 200),
    ],
)
async def test_headers_cannot_be_smuggled(door: Door, headers: tuple[str, ...], status: int) -> None:
    await door.agent()
    answered, head = await raw(door, MINT, *headers)
    assert answered == status, head


async def test_a_repeated_or_foreign_query_does_not_widen_a_request(door: Door) -> None:
    await door.agent()
    await door.agent("zoe", KEY_B, origins=("*",))
    asked = {
        "agent_id=zoe&agent_id=mara": 400,
        "agent_id=mara%2Czoe": 400,
        "agent_id=mara%00": 200,  # what cannot be in a name is dropped, as at registration
        "agent_id=mara&org_id=org_b": 200,
        "agent_id=mara&org=org_b&origin=" + EVIL: 200,
        "agent_id=org_b:mara": 200,
        "agent_id=" + "a" * 5000: 400,
        "AGENT_ID=mara": 400,
        "agent_id[]=mara": 400,
        "agent_id=%6Dara": 200,
        f"agent_id=mara&api_key={PUBLISHABLE_A}&api_key=pk_publishable_other": 401,
    }
    for query, status in asked.items():
        answered, head = await raw(door, f"GET /webrtc/token?{query} HTTP/1.1", f"Origin: {APP}")
        assert answered == status, (query, head)
        if status == 200:
            token = head.partition('"token":"')[2].partition('"')[0]
            grant = await door.gateway.tokens.consume("webrtc", token, APP, None)
            assert (grant.agent.org_id, grant.agent.slug) == ("org_a", "mara")


async def test_other_methods_make_no_token(door: Door) -> None:
    await door.agent()
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = await door.http.request(method, "/webrtc/token?agent_id=mara", headers={"Origin": APP})
        assert answer.status_code == 405
        assert answer.headers["access-control-allow-origin"] == APP
    assert (await door.http.options("/webrtc/token?agent_id=mara", headers={"Origin": APP})).content == b""
    assert len(door.gateway.tokens) == 0


@pytest.mark.parametrize("path", ["/api/sdk/webrtc-token", "/webrtc/offer"])
async def test_a_body_that_never_comes_whole_is_no_fault_of_the_gateway(door: Door, path: str) -> None:
    async with Overheard.everything() as heard:
        _, writer = await asyncio.open_connection("127.0.0.1", door.port)
        head = [f"POST {path} HTTP/1.1", "Host: gateway", "Content-Type: application/json", f"X-API-Key: {KEY_A}"]
        writer.write("\r\n".join([*head, "Content-Length: 100", "", "{"]).encode())
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.1)
    assert "request_failed" not in heard.text
    assert "Traceback" not in heard.text


# --- floods ---


async def test_a_flood_of_pages_is_held_back_and_programs_are_not(door: Door) -> None:
    await door.agent()
    statuses: list[int] = []
    for _ in range(100):
        answer = await door.page(APP)
        statuses.append(answer.status_code)
        if answer.status_code == 429:
            assert 1 <= int(answer.headers["retry-after"]) <= 3
            assert answer.headers["access-control-allow-origin"] == APP
            assert answer.json()["code"] == "RATE_LIMITED"
        assert (await door.mint()).status_code == 200
        await asyncio.sleep(0.1)
    assert 10 <= statuses.count(200) <= 15
    assert statuses.count(200) + statuses.count(429) == 100
    await asyncio.sleep(3)
    assert (await door.page(APP)).status_code == 200


async def test_pages_that_are_refused_do_not_use_up_what_others_may_have(door: Door) -> None:
    await door.agent()
    for _ in range(30):
        assert (await door.page(EVIL)).status_code == 403
    assert (await door.page(APP)).status_code == 200


async def test_many_visitors_of_one_agent_are_bounded_and_other_agents_are_not_touched() -> None:
    async with opened(page_tokens_per_agent=20) as door:
        await door.agent()
        await door.agent("zoe")

        async def visit(number: int, agent_id: str = "mara") -> int:
            headers = {"Origin": APP, "X-Forwarded-For": f"198.51.{number // 250}.{number % 250}"}
            return (await door.mint(key=None, headers=headers, agent_id=agent_id)).status_code

        statuses = [await visit(number) for number in range(60)]
        assert statuses == [200] * 20 + [429] * 40
        assert await visit(100, "zoe") == 200


async def test_one_network_of_addresses_counts_as_one_visitor(door: Door) -> None:
    await door.agent()
    statuses = [
        (await door.mint(key=None, headers={"Origin": APP, "X-Forwarded-For": f"2001:db8::{number:x}"})).status_code
        for number in range(1, 21)
    ]
    assert statuses == [200] * 10 + [429] * 10


async def test_a_program_that_runs_wild_is_held_back_and_other_organisations_are_not() -> None:
    async with opened(key_tokens_per_org=5) as door:
        await door.agent()
        await door.agent(key=KEY_B)
        statuses = [(await door.mint()).status_code for _ in range(8)]
        assert statuses == [200] * 5 + [429] * 3
        assert (await door.mint(key=KEY_B)).status_code == 200


async def test_unused_tokens_are_bounded_and_limits_can_be_switched_off() -> None:
    off = {"page_tokens_per_ip": 0, "page_tokens_per_agent": 0, "key_tokens_per_org": 0}
    async with opened(unused_tokens_per_agent=30, **off) as door:
        await door.agent()
        statuses = [(await door.page(APP)).status_code for _ in range(31)]
        assert statuses == [200] * 30 + [429]
        refused = await door.mint()
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        await asyncio.sleep(61)
        assert (await door.mint()).status_code == 200


async def test_limits_remember_a_bounded_number_of_visitors(door: Door) -> None:
    await door.agent()
    async with opened(page_tokens_per_agent=0, unused_tokens_per_agent=0) as wide:
        await wide.agent()
        before = len(wide.gateway.tokens)
        for number in range(300):
            headers = {"Origin": APP, "X-Forwarded-For": f"visitor {'x' * 900} {number}"}
            assert (await wide.mint(key=None, headers=headers)).status_code in (200, 429)
        # What is no address is cut short: all of these are one visitor.
        assert len(wide.gateway.tokens) - before == 10


# --- what can be learnt ---


async def test_agents_of_others_cannot_be_told_from_agents_that_are_not_there(door: Door) -> None:
    await door.agent("mara", KEY_B, origins=())
    await door.connected(KEY_A)
    await asyncio.sleep(5)
    loop = asyncio.get_running_loop()
    seen: list[tuple[int, str, list[str], bool]] = []
    for agent_id in ("mara", "mark"):
        began = loop.time()
        answer = await door.mint(agent_id=agent_id)
        quick = loop.time() - began < 0.5
        seen.append((answer.status_code, answer.text.replace(agent_id, "…"), sorted(answer.headers), quick))
    assert seen[0] == seen[1]


# --- what is left behind ---


@pytest.mark.proves("row-183")
async def test_nothing_secret_is_logged_and_no_key_reaches_a_browser(door: Door) -> None:
    sealed = "sealed-metadata-4711"
    secrets = {KEY_A, KEY_B, PUBLISHABLE_A, sealed, "pk_wrong_key_that_nobody_has"}
    to_browsers: list[str] = []
    async with Overheard.everything() as heard:
        await door.agent()
        metadata = f'{{"userId":"{sealed}"}}'
        for channel in ("webrtc", "chat"):
            for answer in (
                await door.mint(channel, metadata=metadata),
                await door.page(APP, channel, metadata=metadata),
                await door.mint(channel, PUBLISHABLE_A, {"Origin": APP}),
                await door.mint(channel, None, {"Origin": APP}, api_key=PUBLISHABLE_A),
                await door.mint(channel, None, {"Origin": APP}, api_key=KEY_A),
                await door.mint(channel, metadata=metadata + "x"),
                await door.mint(channel, "pk_wrong_key_that_nobody_has"),
                await door.mint(channel, KEY_B, metadata=metadata),
            ):
                to_browsers.append(f"{answer.headers} {answer.text}")
                if answer.status_code == 200:
                    secrets.add(answer.json()["token"])
        answer = await door.http.post("/api/sdk/webrtc-token", json={"agent_id": "mara"}, headers={"X-API-Key": KEY_A})
        secrets.add(token := answer.json()["token"])
        await door.gateway.tokens.consume("webrtc", token, None, None)
        with pytest.raises(TokenRefused):
            await door.gateway.tokens.consume("webrtc", token, None, None)
        for path in (f"/nowhere/ws?token={token}", f"/nowhere/ws?token={KEY_A}"):
            with suppress(InvalidStatus):
                await connect(f"ws://127.0.0.1:{door.port}{path}")
        to_browsers.append((await door.http.get("/api/sdk/agent-info/mara")).text)
    assert "token_minted" in heard.text
    assert "bad_key" in heard.text
    assert len(secrets) == 5 + 9
    assert [secret for secret in secrets if secret in heard.text] == []
    everything = "\n".join(to_browsers)
    for secret in (KEY_A, KEY_B, sealed, "org_a", "org_b"):
        assert secret not in everything
