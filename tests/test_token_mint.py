"""Who gets a token, for what, and what the answer looks like: a real gateway over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import quote

import httpx2
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from server.store.base import AgentKey
from server.tokens import TokenRefused
from tests.door_rig import (
    KEY_A,
    KEY_B,
    PUBLISHABLE_A,
    PUBLISHABLE_B,
    Door,
    opened,
)
from tests.redis_server import RedisServer, eventually
from tests.redis_server import redis_server as redis_server
from tests.virtual_time import event_loop_policy as event_loop_policy

PUBLIC_URL = "https://voice.example.org"
APP = "https://app.site.com"
MARA = AgentKey("org_a", "mara")


@pytest.fixture
async def door() -> AsyncGenerator[Door]:
    async with opened(public_url=PUBLIC_URL) as door:
        yield door


def refused(answer: httpx2.Response, status: int, code: str) -> str:
    """The text of a refusal that every reader understands."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["code"] == code
    assert isinstance(body["detail"], str)
    assert body["detail"] == body["error"] != ""
    return body["detail"]


def minted(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()["token"]


# --- the answer ---


@pytest.mark.proves("web-1", "web-2", "row-178")
@pytest.mark.parametrize(("channel", "prefix"), [("webrtc", "wrtc_"), ("chat", "cht_")])
async def test_a_key_gets_a_token_in_both_spellings(door: Door, channel: str, prefix: str) -> None:
    await door.agent()
    answer = await door.mint(channel)
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"token", "server", "expires_in", "expiresIn"}
    assert body["token"].startswith(prefix)
    assert len(body["token"]) >= len(prefix) + 22  # 128 bits, whatever the alphabet
    assert body["server"] == PUBLIC_URL
    assert body["expires_in"] == body["expiresIn"] == 60
    assert answer.headers["cache-control"] == "no-store"
    assert minted(await door.mint(channel)) != body["token"]


@pytest.mark.proves("web-3", "row-180")
@pytest.mark.parametrize("origin", [APP, "https://a.b.site.com", "http://localhost:5173"])
async def test_a_page_of_an_allowed_origin_gets_a_token(door: Door, origin: str) -> None:
    await door.agent()
    for channel in ("webrtc", "chat"):
        answer = await door.page(origin, channel)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"


@pytest.mark.proves("web-4", "row-180")
@pytest.mark.parametrize(
    "origin",
    [
        "https://site.com",
        "https://evilsite.com",
        "https://app.site.com.evil.io",
        "http://app.site.com",
        "https://app.site.com:8443",
        "https://localhost:5173",
        "null",
    ],
)
async def test_a_page_of_another_origin_is_refused_so_that_it_can_read_why(door: Door, origin: str) -> None:
    await door.agent()
    answer = await door.page(origin)
    refused(answer, 403, "ORIGIN_NOT_ALLOWED")
    assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.proves("web-5", "row-181")
async def test_without_key_and_origin_there_is_no_token(door: Door) -> None:
    await door.agent()
    refused(await door.mint(key=None), 401, "UNAUTHORIZED")
    own = {"Sec-Fetch-Site": "same-origin"}
    refused(await door.mint(key=None, headers=own), 403, "ORIGIN_NOT_ALLOWED")
    await door.agent("zoe", origins=(PUBLIC_URL,))
    minted(await door.mint(key=None, headers=own, agent_id="zoe"))
    refused(await door.mint(key=None, headers={"Sec-Fetch-Site": "same-site"}, agent_id="zoe"), 401, "UNAUTHORIZED")


@pytest.mark.proves("web-6")
async def test_a_bad_key_is_not_made_good_by_an_origin(door: Door) -> None:
    await door.agent()
    for key in ("pk_wrong_key_of_nobody", "x", KEY_B[:-1], "pk_publishable_of_nobody"):
        refused(await door.mint(key=key, headers={"Origin": APP}), 401, "UNAUTHORIZED")


@pytest.mark.proves("web-6")
async def test_a_page_cannot_seal_metadata(door: Door) -> None:
    await door.agent()
    for text in ('{"userId":"root"}', "not even JSON", "x" * 4000):
        token = minted(await door.page(APP, metadata=text))
        assert (await door.gateway.tokens.consume("webrtc", token, None, None)).metadata == {}


async def test_a_key_seals_metadata_as_it_was_written(door: Door) -> None:
    await door.agent()
    token = minted(await door.mint(metadata='{"userId":"1","nested":{"ñ":[1.50,null]}}'))
    grant = await door.gateway.tokens.consume("webrtc", token, None, None)
    assert {key: bytes(value).decode() for key, value in grant.metadata.items()} == {
        "userId": '"1"',
        "nested": '{"ñ":[1.50,null]}',
    }


@pytest.mark.proves("web-7", "row-181")
async def test_an_agent_without_allowed_origins_is_closed_to_pages(door: Door) -> None:
    await door.agent(origins=())
    for origin in (APP, PUBLIC_URL, "null"):
        refused(await door.page(origin), 403, "ORIGIN_NOT_ALLOWED")
    minted(await door.mint())


@pytest.mark.proves("web-8", "row-187")
async def test_an_agent_of_others_is_as_absent_as_one_that_is_not_there(door: Door) -> None:
    await door.agent()
    await door.connected(KEY_B)
    assert refused(await door.mint(agent_id="ghost"), 404, "AGENT_OFFLINE") == "Agent 'ghost' is not online"
    others = await door.mint(key=KEY_B)
    assert refused(others, 404, "AGENT_OFFLINE") == "Agent 'mara' is not online"
    absent = await door.mint(key=KEY_B, agent_id="mark")
    assert others.text.replace("mara", "mark") == absent.text
    assert sorted(others.headers) == sorted(absent.headers)


@pytest.mark.proves("web-9")
async def test_what_cannot_be_meant_is_a_bad_request(door: Door) -> None:
    await door.agent()
    key = {"Authorization": f"Bearer {KEY_A}"}
    refused(await door.http.get("/webrtc/token", headers=key), 400, "BAD_REQUEST")
    for agent_id in ("", "  ", "!!!", "mara,zoe", "a" * 129, "ü"):
        refused(await door.mint(agent_id=agent_id), 400, "BAD_REQUEST")
    refused(await door.http.get("/webrtc/token?agent_id=mara&agent_id=zoe", headers=key), 400, "BAD_REQUEST")
    for scope in ("observe", "supervise", "", "participate observe"):
        refused(await door.mint(scope=scope), 400, "BAD_REQUEST")
    minted(await door.mint(scope="participate", call_id="CA1"))


@pytest.mark.proves("web-9")
@pytest.mark.parametrize(
    "text",
    [
        '{"a":"' + "x" * 2041 + '"}',
        "[1]",
        "",
        "null",
        "{",
        '{"a":1}{"b":2}',
        '{"a":NaN}',
        '{"a":"\ud800"}',
        '{"a":"\\ud800"}',
        '{"a":' + "[" * 1000 + "]" * 1000 + "}",
        '{"a":' * 400 + "1" + "}" * 400 + "]",
    ],
)
async def test_metadata_that_is_no_small_object_is_refused(door: Door, text: str) -> None:
    await door.agent()
    encoded = quote(text.encode("utf-8", "surrogatepass"))
    headers = {"Authorization": f"Bearer {KEY_A}"}
    answer = await door.http.get(f"/webrtc/token?agent_id=mara&metadata={encoded}", headers=headers)
    if text == '{"a":"\ud800"}':
        minted(answer)  # what is no UTF-8 was replaced before anybody looked
    else:
        assert "x" * 20 not in refused(answer, 400, "BAD_REQUEST")


async def test_metadata_is_measured_in_bytes(door: Door) -> None:
    await door.agent()
    minted(await door.mint(metadata='{"a":"' + "x" * 2040 + '"}'))
    refused(await door.mint(metadata='{"a":"' + "é" * 1021 + '"}'), 400, "BAD_REQUEST")


@pytest.mark.proves("web-10")
async def test_every_spelling_of_an_agent_finds_it(door: Door) -> None:
    await door.agent()
    for spelling in ("MARA", "Mara_", " mara ", "org_a:mara", "m-a-r-a".replace("-", "")):
        minted(await door.mint(agent_id=spelling))


async def test_a_prefix_of_another_organisation_opens_nothing_of_it(door: Door) -> None:
    await door.agent("mara", KEY_A)
    await door.connected(KEY_B)
    refused(await door.mint(key=KEY_B, agent_id="org_a:mara"), 404, "AGENT_OFFLINE")


# --- publishable keys ---


@pytest.mark.proves("row-182")
async def test_a_publishable_key_needs_an_allowed_origin(door: Door) -> None:
    await door.agent()
    await door.agent("zoe", origins=())
    minted(await door.mint(key=PUBLISHABLE_A, headers={"Origin": APP}))
    minted(await door.mint(key=None, headers={"Origin": APP}, api_key=PUBLISHABLE_A))
    refused(await door.mint(key=PUBLISHABLE_A), 401, "UNAUTHORIZED")
    refused(await door.mint(key=PUBLISHABLE_A, headers={"Origin": "https://evil.io"}), 403, "ORIGIN_NOT_ALLOWED")
    refused(await door.mint(key=PUBLISHABLE_A, headers={"Origin": APP}, agent_id="zoe"), 403, "ORIGIN_NOT_ALLOWED")
    refused(await door.mint(key=PUBLISHABLE_B, headers={"Origin": APP}), 404, "AGENT_OFFLINE")
    token = minted(await door.mint(key=PUBLISHABLE_A, headers={"Origin": APP}, metadata='{"userId":"root"}'))
    assert (await door.gateway.tokens.consume("webrtc", token, None, None)).metadata == {}
    legacy = await door.http.post(
        "/api/sdk/webrtc-token", json={"agent_id": "mara"}, headers={"X-API-Key": PUBLISHABLE_A, "Origin": APP}
    )
    refused(legacy, 401, "UNAUTHORIZED")


async def test_a_secret_key_in_an_address_is_refused(door: Door) -> None:
    await door.agent()
    refused(await door.mint(key=None, api_key=KEY_A), 401, "UNAUTHORIZED")
    refused(await door.mint(key=KEY_A, api_key=KEY_A), 401, "UNAUTHORIZED")
    refused(await door.mint(key=KEY_A, api_key=PUBLISHABLE_A), 401, "UNAUTHORIZED")


async def test_a_name_that_two_organisations_use_belongs_to_the_one_that_allows_the_page(door: Door) -> None:
    await door.agent(key=KEY_A, origins=(APP,))
    await door.agent(key=KEY_B, origins=("https://shop.example",))
    for origin, org_id in ((APP, "org_a"), ("https://shop.example", "org_b")):
        grant = await door.gateway.tokens.consume("webrtc", minted(await door.page(origin)), None, None)
        assert grant.agent == AgentKey(org_id, "mara")
    refused(await door.page("https://evil.io"), 404, "AGENT_OFFLINE")
    await door.agent("zoe", KEY_A, origins=("*",))
    await door.agent("zoe", KEY_B, origins=("*",))
    refused(await door.page(APP, agent_id="zoe"), 404, "AGENT_OFFLINE")
    token = minted(await door.mint(key=PUBLISHABLE_B, headers={"Origin": APP}, agent_id="zoe"))
    assert (await door.gateway.tokens.consume("webrtc", token, None, None)).agent == AgentKey("org_b", "zoe")


# --- who is there ---


@pytest.mark.proves("row-12")
async def test_a_removed_agent_gets_no_token_and_its_number_is_free(door: Door) -> None:
    number = "+13186330963"
    client = await door.agent()
    assert (await client.ask("channel.add", agent_id="mara", type="phone", ref=number))["event"] == "channel.added"
    minted(await door.mint())
    assert (await client.ask("agent.remove", agent_id="mara"))["event"] == "agent.removed"
    refused(await door.mint(), 404, "AGENT_OFFLINE")
    refused(await door.page(APP), 404, "AGENT_OFFLINE")
    other = await door.agent("zoe", KEY_B)
    assert (await other.ask("channel.add", agent_id="zoe", type="phone", ref=number))["event"] == "channel.added"


@pytest.mark.proves("row-154")
async def test_a_development_agents_token_opens_that_agent_only(door: Door) -> None:
    await door.agent("mara")
    await door.agent("dev-ana-mara")
    token = minted(await door.mint(agent_id="dev-ana-mara"))
    with pytest.raises(TokenRefused) as wrong:
        await door.gateway.tokens.consume("webrtc", token, None, "mara")
    assert (wrong.value.status, wrong.value.code) == (403, "FORBIDDEN")
    grant = await door.gateway.tokens.consume("webrtc", token, None, "dev-ana-mara")
    assert grant.agent == AgentKey("org_a", "dev-ana-mara")


async def test_an_agent_whose_connection_is_lost_is_not_online(door: Door) -> None:
    client = await door.agent()
    client.socket.transport.abort()
    await asyncio.sleep(5)
    refused(await door.mint(), 404, "AGENT_OFFLINE")
    refused(await door.page(APP), 404, "AGENT_OFFLINE")


async def test_an_agent_that_is_just_registering_is_waited_for(door: Door) -> None:
    client = await door.connected()
    asked = asyncio.create_task(door.mint())
    await asyncio.sleep(0.5)
    assert (await client.ask("agent.create", agent_id="mara"))["event"] == "agent.created"
    minted(await asked)


async def test_an_absent_agent_is_waited_for_a_second_at_most(door: Door) -> None:
    await door.connected()
    loop = asyncio.get_running_loop()
    began = loop.time()
    refused(await door.mint(), 404, "AGENT_OFFLINE")
    assert loop.time() - began == pytest.approx(1.0, abs=0.3)
    began = loop.time()
    refused(await door.mint(key=KEY_B), 404, "AGENT_OFFLINE")
    assert loop.time() - began < 0.4


# --- how SDKs ask ---


@pytest.mark.proves("row-176", "row-190")
@pytest.mark.parametrize("channel", ["webrtc", "chat"])
async def test_a_process_without_the_agent_mints_as_every_call_style_does(door: Door, channel: str) -> None:
    """`createToken` of the client, the agent and the class send one request: a Bearer key and `agent_id`."""
    await door.agent()
    headers = {"Authorization": f"Bearer {KEY_A}", "User-Agent": "node", "Accept": "*/*", "Sec-Fetch-Mode": "cors"}
    async with httpx2.AsyncClient(headers=headers) as backend:
        for query in ("agent_id=mara", "agent_id=mara&metadata=%7B%22userId%22%3A%221%22%7D"):
            answer = await backend.get(f"{door.url}/{channel}/token?{query}")
            token = minted(answer)
            grant = await door.gateway.tokens.consume(channel, token, None, None)  # pyright: ignore[reportArgumentType]
            assert grant.agent == MARA


@pytest.mark.proves("row-177")
async def test_the_deprecated_fetch_works_from_an_allowed_origin_only(door: Door) -> None:
    """`fetchWebRTCToken` sends `agent_id` and nothing else; in a page the browser adds `Origin`."""
    await door.agent()
    minted(await door.page(APP))
    refused(await door.mint(key=None), 401, "UNAUTHORIZED")
    refused(await door.page("https://evil.io"), 403, "ORIGIN_NOT_ALLOWED")


async def test_the_mint_of_the_first_sdks_answers_the_same(door: Door) -> None:
    await door.agent()
    asked = {"agent_id": "mara"}
    answer = await door.http.post("/api/sdk/webrtc-token", json=asked, headers={"X-API-Key": KEY_A})
    token = minted(answer)
    assert answer.json() == {"token": token, "server": PUBLIC_URL, "expires_in": 60, "expiresIn": 60}
    assert (await door.gateway.tokens.consume("webrtc", token, None, None)).agent == MARA
    url, key = "/api/sdk/webrtc-token", {"X-API-Key": KEY_A}
    refused(await door.http.post(url, json=asked), 401, "UNAUTHORIZED")
    refused(await door.http.post(url, json=asked, headers={"Origin": APP}), 401, "UNAUTHORIZED")
    refused(await door.http.post(url, json={"agent_id": "ghost"}, headers=key), 404, "AGENT_OFFLINE")
    for body in (b"", b"[]", b'{"agent_id":5}', b'{"agent_id":""}', b"[" * 9000, b"\xff\xfe", b'{"agent_id":"a,b"}'):
        refused(await door.http.post(url, content=body, headers=key), 400, "BAD_REQUEST")
    refused(await door.http.post(url, content=b"x" * 20_000, headers=key), 413, "TOO_LARGE")


@pytest.mark.proves("row-190")
async def test_a_gateway_without_the_agent_mints_a_token_for_the_one_that_has_it(redis_server: RedisServer) -> None:
    shared = {"redis_url": SecretStr(redis_server.url), "public_url": PUBLIC_URL}
    async with opened(**shared) as here, opened(**shared) as there:
        for door in (here, there):
            await eventually(lambda door=door: door.gateway.ready)
        await there.agent()
        token = minted(await here.mint())
        assert (await there.gateway.tokens.consume("webrtc", token, None, "mara")).agent == MARA
        refused(await here.mint(key=KEY_B), 404, "AGENT_OFFLINE")
        refused(await here.page(APP), 404, "AGENT_OFFLINE")
        minted(await there.page(APP))
        redis_server.kill()
        for answer in (await there.mint(), await there.page(APP)):
            refused(answer, 503, "STORE_UNAVAILABLE")
            assert answer.headers["retry-after"] == "5"


async def test_patterns_that_mean_nothing_are_told_in_the_log_when_the_agent_registers(door: Door) -> None:
    with capture_logs() as lines:
        await door.agent(origins=(APP, "https://*", "*.site.com"))
    (told,) = [line for line in lines if line["event"] == "allowed_origins_ignored"]
    assert (told["org"], told["agent"], told["count"]) == ("org_a", "mara", 2)
    assert told["first"] == ["https://*", "*.site.com"]
    minted(await door.page(APP))
    refused(await door.page("https://a.site.com"), 403, "ORIGIN_NOT_ALLOWED")


async def test_an_agent_that_comes_back_allows_what_it_says_then(door: Door) -> None:
    client = await door.agent()
    created = await client.ask("agent.create", agent_id="mara", allowed_origins=["https://new.example"])
    assert created["event"] == "agent.created"
    refused(await door.page(APP), 403, "ORIGIN_NOT_ALLOWED")
    minted(await door.page("https://new.example"))


# --- where to come back to ---


@pytest.mark.parametrize(
    ("headers", "server"),
    [
        ({}, "http://127.0.0.1:{port}"),
        ({"Host": "voice.lan:8080"}, "http://voice.lan:8080"),
        ({"Host": "voice.example.org", "X-Forwarded-Proto": "https"}, "https://voice.example.org"),
        ({"X-Forwarded-Host": "voice.example.org", "X-Forwarded-Proto": "https"}, "https://voice.example.org"),
        ({"Host": "evil.io/path"}, "http://127.0.0.1:{port}"),
        ({"Host": "user@evil.io"}, "http://127.0.0.1:{port}"),
        ({"X-Forwarded-Host": "<script>", "X-Forwarded-Proto": "javascript"}, "http://127.0.0.1:{port}"),
    ],
)
async def test_without_a_public_address_it_is_taken_from_the_request(headers: dict[str, str], server: str) -> None:
    async with opened() as door:
        await door.agent()
        answer = await door.mint(headers=headers)
        minted(answer)
        assert answer.json()["server"] == server.format(port=door.port)


async def test_only_trusted_proxies_say_who_asks_and_for_which_host() -> None:
    async with opened(forwarded_allow_ips="192.0.2.1", page_tokens_per_ip=1) as door:
        await door.agent()
        forged = {"X-Forwarded-Host": "evil.io", "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.1"}
        assert (await door.mint(headers=forged)).json()["server"] == door.url
        minted(await door.mint(key=None, headers={"Origin": APP, "X-Forwarded-For": "203.0.113.1"}))
        again = await door.mint(key=None, headers={"Origin": APP, "X-Forwarded-For": "203.0.113.2"})
        refused(again, 429, "RATE_LIMITED")
