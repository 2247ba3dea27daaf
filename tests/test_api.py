"""What all HTTP routes share: one error body, who is asking, and what pages of other sites may read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import httpx2
import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from pipelines.clock import LoopClock
from server.api.access import Access, keys_shown, network_of, peer_of
from server.api.cors import Cors
from server.api.errors import ApiError, answer_errors, too_many
from server.auth import Keys
from server.store.base import StoreUnavailable
from tests.virtual_time import event_loop_policy as event_loop_policy

KEY = "pk_live_the_key_of_org_main"
OTHER = "pk_live_the_key_of_org_two"
PUBLISHABLE = "pk_publishable_of_org_main"


def application(keys: Keys) -> FastAPI:
    access = Access(keys, LoopClock())
    app = FastAPI(redirect_slashes=False)
    answer_errors(app)

    @app.get("/api/whoami")
    async def whoami(request: Request) -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"org": await access.org(request), "peer": peer_of(request)}

    @app.get("/webrtc/token")
    async def count(agent_id: int) -> dict[str, int]:  # pyright: ignore[reportUnusedFunction]
        return {"agent_id": agent_id}

    @app.post("/webrtc/offer")
    async def offer() -> None:  # pyright: ignore[reportUnusedFunction]
        raise RuntimeError("secret words of the code")

    @app.get("/api/sdk/agent-info/{agent}")
    async def info(agent: str) -> None:  # pyright: ignore[reportUnusedFunction]
        raise too_many(f"Too many questions about {agent}", 2.4)

    @app.get("/chat/token")
    async def storeless() -> None:  # pyright: ignore[reportUnusedFunction]
        raise StoreUnavailable("redis://:password@somewhere")

    @app.websocket("/chat/ws")
    async def chat(websocket: WebSocket) -> None:  # pyright: ignore[reportUnusedFunction]
        raise ApiError(403, "FORBIDDEN", "Not you")

    return app


@dataclass
class Door:
    """The application, spoken to without a network."""

    app: Cors = field(default_factory=lambda: Cors(application(Keys([("org_main", KEY), ("org_two", OTHER)]))))

    def client(self, peer: str = "203.0.113.7") -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False, client=(peer, 5000))
        return httpx2.AsyncClient(transport=transport, base_url="http://gateway")


@pytest.fixture
async def door() -> AsyncGenerator[httpx2.AsyncClient]:
    async with Door().client() as client:
        yield client


def told(answer: httpx2.Response) -> str:
    """The error's text, if the body is what every reader understands."""
    body = answer.json()
    assert set(body) == {"success", "error", "detail", "code"}
    assert body["success"] is False
    assert body["error"] == body["detail"] != ""
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    return body["code"] + ": " + body["detail"]


async def test_every_error_has_the_one_body(door: httpx2.AsyncClient) -> None:
    assert told(await door.get("/api/nothing")) == "NOT_FOUND: Not Found"
    refused = await door.delete("/api/whoami")
    assert (refused.status_code, told(refused)) == (405, "METHOD_NOT_ALLOWED: Method Not Allowed")
    assert refused.headers["allow"] == "GET"
    missing = await door.get("/webrtc/token")
    assert (missing.status_code, told(missing)) == (400, "BAD_REQUEST: agent_id: Field required")
    away = await door.get("/chat/token")
    assert (away.status_code, away.headers["retry-after"]) == (503, "5")
    assert "password" not in told(away)


async def test_what_was_sent_is_not_repeated_in_an_error(door: httpx2.AsyncClient) -> None:
    answer = await door.get("/webrtc/token?agent_id=wrtc_secret")
    assert answer.status_code == 400
    assert "wrtc_secret" not in told(answer)


async def test_a_failure_says_nothing_of_the_code(door: httpx2.AsyncClient) -> None:
    with capture_logs() as lines:
        answer = await door.post("/webrtc/offer", headers={"Origin": "https://any.site"})
    assert answer.status_code == 500
    assert told(answer).startswith("INTERNAL_ERROR: ")
    assert "secret words" not in answer.text
    assert answer.headers["access-control-allow-origin"] == "*"
    assert [line["event"] for line in lines] == ["request_failed"]


async def test_a_slash_too_many_is_tolerated_and_nobody_is_sent_elsewhere(door: httpx2.AsyncClient) -> None:
    answer = await door.get("http://gateway//api/whoami", headers={"X-API-Key": KEY})
    assert answer.json()["org"] == "org_main"
    assert (await door.get("/api/whoami/", headers={"X-API-Key": KEY})).status_code == 404


async def test_a_refusal_before_a_websocket_opens_has_status_and_body() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope: Scope = {"type": "websocket", "path": "/chat/ws", "headers": [], "query_string": b"", "subprotocols": []}
    scope["extensions"] = {"websocket.http.response": {}}
    app: tuple[Receive, Send] = (receive, send)
    await Door().app(scope, *app)
    assert sent[0]["status"] == 403
    assert b'"code":"FORBIDDEN"' in sent[1]["body"]


# --- who is asking ---


@pytest.mark.parametrize(
    ("headers", "org"),
    [
        ([("Authorization", f"Bearer {KEY}")], "org_main"),
        ([("Authorization", f"bearer   {OTHER} ")], "org_two"),
        ([("X-API-Key", OTHER)], "org_two"),
        ([("X-API-Key", KEY), ("Authorization", f"Bearer {KEY}")], "org_main"),
        ([("X-API-Key", KEY), ("Authorization", "Basic dTpw")], "org_main"),
    ],
)
async def test_a_key_tells_whose_a_request_is(
    door: httpx2.AsyncClient, headers: list[tuple[str, str]], org: str
) -> None:
    assert (await door.get("/api/whoami", headers=headers)).json()["org"] == org


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer ")],
        [("Authorization", f"Basic {KEY}")],
        [("Authorization", f"Bearer {KEY}x")],
        [("Authorization", f"Bearer {KEY.upper()}")],
        [("Authorization", f"Bearer {PUBLISHABLE}")],
        [("X-API-Key", "")],
        [("X-API-Key", KEY), ("X-API-Key", OTHER)],
        [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {OTHER}")],
        [("Authorization", f"Bearer {KEY}"), ("X-API-Key", "pk_wrong")],
        [("X-API-Key", b"pk_\xff\xfe")],
    ],
)
async def test_anything_but_one_good_key_is_refused(
    door: httpx2.AsyncClient, headers: list[tuple[str, str | bytes]]
) -> None:
    raw = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
    answer = await door.get("/api/whoami", headers=raw)
    assert answer.status_code == 401
    assert told(answer).startswith("UNAUTHORIZED")


async def test_who_keeps_coming_with_bad_keys_waits_and_the_log_stays_short(door: httpx2.AsyncClient) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with capture_logs() as lines:
        for count in range(5):
            await door.get("/api/whoami", headers={"X-API-Key": f"{count:012}-bad"})
        assert loop.time() == pytest.approx(began, abs=0.2)
        for count in range(5):
            answer = await door.get("/api/whoami", headers={"X-API-Key": f"{count:012}-worse"})
            assert answer.status_code == 401
    assert loop.time() - began >= 7.5
    assert len(lines) == 5
    assert (await door.get("/api/whoami", headers={"X-API-Key": KEY})).status_code == 200


async def test_of_a_flood_of_bad_keys_few_are_held() -> None:
    async with Door().client() as door:
        keys = (f"{count:012}-bad" for count in range(600))
        answers = await asyncio.gather(*(door.get("/api/whoami", headers={"X-API-Key": key}) for key in keys))
        statuses = [answer.status_code for answer in answers]
        assert statuses.count(401) == 5 + 256
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.headers["retry-after"] == "2"
        assert (await door.get("/api/whoami", headers={"X-API-Key": KEY})).status_code == 200


def test_one_subscriber_counts_as_one() -> None:
    assert network_of("203.0.113.7") == "203.0.113.7"
    assert network_of("::ffff:203.0.113.7") == "203.0.113.7"
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::9") != network_of("2001:db8:1:3::9")
    assert network_of("fe80::1%eth0") == "fe80::"
    assert network_of("not an address") == "not an address"
    assert network_of("") == ""


def test_an_empty_header_is_a_key_that_was_shown() -> None:
    app = FastAPI()
    request = Request({"type": "http", "headers": [(b"x-api-key", b"")], "app": app})
    assert keys_shown(request) == {""}


# --- pages of other sites ---


@pytest.mark.proves("web-11")
@pytest.mark.parametrize("path", ["/webrtc/offer", "/webrtc/token", "/api/scribe", "/api/sdk/agent-info/mara"])
async def test_a_browser_that_asks_first_is_told_what_it_may(door: httpx2.AsyncClient, path: str) -> None:
    asking = {
        "Origin": "https://app.site.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answer = await door.options(path, headers=asking)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.site.com")
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "content-type" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-max-age"] == "600"
    assert "access-control-allow-private-network" not in answer.headers
    answer = await door.options(path, headers={**asking, "Access-Control-Request-Private-Network": "true"})
    assert answer.headers["access-control-allow-private-network"] == "true"


async def test_token_routes_name_the_origin_that_asked_on_every_status(door: httpx2.AsyncClient) -> None:
    for origin in ("https://app.site.com", "null"):
        answer = await door.get("/webrtc/token", headers={"Origin": origin})
        assert answer.status_code == 400
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers
    without = await door.get("/webrtc/token")
    assert "access-control-allow-origin" not in without.headers
    twice = await door.get("/webrtc/token", headers=[("Origin", "https://a.b"), ("Origin", "https://c.d")])
    assert "access-control-allow-origin" not in twice.headers


async def test_errors_of_open_routes_can_be_read_by_pages(door: httpx2.AsyncClient) -> None:
    answer = await door.get("/api/sdk/agent-info/mara", headers={"Origin": "https://any.site"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_other_routes_are_closed_to_pages_of_other_sites(door: httpx2.AsyncClient) -> None:
    answer = await door.get("/api/whoami", headers={"Origin": "https://any.site", "X-API-Key": KEY})
    assert "access-control-allow-origin" not in answer.headers
    asked = await door.options("/api/whoami", headers={"Origin": "https://any.site"})
    assert asked.status_code == 405
    nearly = await door.get("/webrtc/offers", headers={"Origin": "https://any.site"})
    assert "access-control-allow-origin" not in nearly.headers
