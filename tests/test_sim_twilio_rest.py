"""The simulated Twilio account, checked with Twilio's own client and its own check of signatures."""

# Twilio's package has no types.
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response as TwilioResponse
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from tests.simulators.twilio_callee import Callee, DialledCall, Order
from tests.simulators.twilio_resources import Domain
from tests.simulators.twilio_rest import SimulatedTwilioRest

CALL = "CA" + "1" * 32
OURS = "+13186330963"
THEIRS = "+12025550142"
PUBLIC = "https://voice.example"
STREAM = '<Response><Connect><Stream url="wss://voice.example/twilio/stream"/></Connect></Response>'
EVENTS = ["initiated", "ringing", "answered", "completed"]


class Rerouted(TwilioHttpClient):
    """Twilio's HTTP client, sent to the simulator."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._base_url = base_url

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> TwilioResponse:
        return super().request(method, url.replace("https://api.twilio.com", self._base_url), *args, **kwargs)


@dataclass
class Post:
    """A gateway that only listens: webhooks that were really signed, and media streams that it closes when told."""

    origin: str = ""
    token: str = ""
    hooks: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    forged: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    hang_up: asyncio.Event = field(default_factory=asyncio.Event)
    streams: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    twiml: str = STREAM

    def statuses(self) -> list[str]:
        return [hook["CallStatus"] for hook in self.hooks if "SequenceNumber" in hook]

    async def hook(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        url = PUBLIC + request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if not RequestValidator(self.token).validate(url, form, request.headers.get("x-twilio-signature", "")):
            self.forged += 1
            return Response(status_code=403)
        self.hooks.append(form)
        return Response(self.twiml, media_type="text/xml")

    async def stream(self, socket: WebSocket) -> None:
        await socket.accept()
        assert (await socket.receive_json())["event"] == "connected"
        self.streams.append((await socket.receive_json())["start"])
        self.opened.set()
        await self.hang_up.wait()
        await socket.close()


@asynccontextmanager
async def _listening(token: str) -> AsyncGenerator[Post]:
    post = Post(token=token)
    app = FastAPI()
    app.add_api_route("/twilio/{what}", post.hook, methods=["POST"])
    app.add_api_websocket_route("/twilio/stream", post.stream)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        post.origin = f"http://127.0.0.1:{sock.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
        serving = asyncio.create_task(server._serve([sock]))  # pyright: ignore[reportPrivateUsage]
        try:
            yield post
        finally:
            post.hang_up.set()
            server.should_exit = True
            await serving


@pytest.fixture
async def post() -> AsyncGenerator[Post]:
    async with _listening("simulated-token") as listening:
        yield listening


@pytest.fixture
async def twilio(post: Post) -> AsyncGenerator[SimulatedTwilioRest]:
    simulator = SimulatedTwilioRest(calls={CALL: "in-progress"}, gateway=post.origin)
    simulator.own(OURS)
    simulator.callee = Callee(rings_s=0.02, recognised_s=0.02)
    async with simulator.running():
        yield simulator


def _client(twilio: SimulatedTwilioRest, token: str | None = None) -> Client:
    return Client(twilio.account_sid, token or twilio.auth_token, http_client=Rerouted(twilio.base_url))


async def _dial(twilio: SimulatedTwilioRest, **changes: object) -> DialledCall:
    """Twilio's own client makes a call."""
    order: dict[str, Any] = {
        "to": THEIRS,
        "from_": OURS,
        "twiml": STREAM,
        "timeout": 25,
        "status_callback": PUBLIC + "/twilio/status",
        "status_callback_event": EVENTS,
        **changes,
    }
    made = await asyncio.to_thread(lambda: _client(twilio).calls.create(**order))
    assert (made.status, made.direction, made.to) == ("queued", "outbound-api", order["to"])
    call = await twilio.dialled(len(twilio.dials))
    assert call.sid == made.sid
    return call


async def _over(call: DialledCall) -> None:
    async with asyncio.timeout(10):
        await call.over.wait()


def _refused(attempt: Callable[[], object]) -> tuple[int, int | None]:
    with pytest.raises(TwilioRestException) as caught:
        attempt()
    return caught.value.status, caught.value.code


async def test_calls_in_progress_convince_twilios_own_client(twilio: SimulatedTwilioRest) -> None:
    def talk() -> None:
        client = _client(twilio)
        assert client.calls(CALL).fetch().status == "in-progress"
        assert client.calls(CALL).update(twiml="<Response/>").sid == CALL
        assert client.calls(CALL).update(status="completed").status == "completed"
        assert _refused(lambda: client.calls(CALL).update(status="completed")) == (400, 21220)
        assert _refused(lambda: client.calls("CA404").fetch()) == (404, 20404)
        assert _refused(lambda: _client(twilio, "wrong").calls(CALL).fetch()) == (401, 20003)

    await asyncio.to_thread(talk)
    assert twilio.twiml[CALL] == "<Response/>"


async def test_numbers_and_domains_convince_twilios_own_client(twilio: SimulatedTwilioRest) -> None:
    twilio.own(*(f"+1202555{n:04d}" for n in range(5)))
    twilio.domains.append(Domain(twilio.account_sid, "acme.sip.twilio.com"))

    def talk() -> None:
        client = _client(twilio)
        assert len(client.incoming_phone_numbers.list(page_size=2)) == 6
        (ours,) = client.incoming_phone_numbers.list(phone_number=OURS)
        assert ours.phone_number == OURS
        changed = ours.update(voice_url=PUBLIC + "/twilio/voice", status_callback=PUBLIC + "/twilio/status")
        assert (changed.voice_url, changed.voice_method) == (PUBLIC + "/twilio/voice", "POST")
        assert _refused(lambda: ours.update(voice_url="ftp://nowhere")) == (400, 21502)
        assert _refused(lambda: client.incoming_phone_numbers("PN404").fetch()) == (404, 20404)
        (domain,) = client.sip.domains.list()
        assert domain.domain_name == "acme.sip.twilio.com"
        assert domain.update(voice_url=PUBLIC + "/twilio/voice").voice_url == PUBLIC + "/twilio/voice"
        account = client.api.v2010.account
        assert (account.balance.fetch().balance, account.balance.fetch().currency) == ("41.07", "USD")

    await asyncio.to_thread(talk)


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"to": "12"}, 21211),
        ({"to": ""}, 21201),
        ({"from_": "anonymous"}, 21212),
        ({"from_": "+15005550001"}, 21210),
        ({"twiml": None}, 21205),
        ({"twiml": None, "url": "http://localhost/x"}, 21205),
        ({"twiml": "<Response>"}, 12100),
        ({"timeout": 0}, 20001),
        ({"status_callback": "not a url"}, 21609),
        ({"status_callback_event": ["answer"]}, 21626),
        ({"machine_detection": "Yes"}, 20001),
    ],
)
async def test_a_call_twilio_would_not_make_is_refused(
    twilio: SimulatedTwilioRest, order: dict[str, Any], code: int
) -> None:
    whole = {"to": THEIRS, "from_": OURS, "twiml": STREAM, "status_callback": PUBLIC + "/x", **order}
    assert await asyncio.to_thread(_refused, lambda: _client(twilio).calls.create(**whole)) == (400, code)
    assert twilio.dials == []


async def test_a_call_rings_is_answered_and_ends_when_the_gateway_closes_the_stream(
    twilio: SimulatedTwilioRest, post: Post
) -> None:
    call = await _dial(twilio)
    telephone = await call.picked_up()
    assert twilio.calls[call.sid] == "in-progress"
    await post.opened.wait()
    assert post.streams[0]["callSid"] == call.sid
    post.hang_up.set()
    await telephone.wait_ended()
    await _over(call)
    assert post.statuses() == ["initiated", "ringing", "in-progress", "completed"]
    assert [hook["SequenceNumber"] for hook in post.hooks] == ["0", "1", "2", "3"]
    assert post.forged == 0
    assert twilio.calls[call.sid] == "completed"


async def test_a_url_is_asked_for_instructions_once_somebody_answers(twilio: SimulatedTwilioRest, post: Post) -> None:
    call = await _dial(twilio, twiml=None, url=PUBLIC + "/twilio/voice?x=1", status_callback_event=["answered"])
    await call.picked_up()
    asked = next(hook for hook in post.hooks if "SequenceNumber" not in hook)
    assert (asked["CallStatus"], asked["Direction"], asked["To"]) == ("in-progress", "outbound-api", THEIRS)
    assert post.statuses() == ["in-progress"]


@pytest.mark.parametrize("what", ["busy", "failed", "no-answer"])
async def test_a_call_nobody_answers_says_why(twilio: SimulatedTwilioRest, post: Post, what: str) -> None:
    twilio.callees[THEIRS] = Callee(what, rings_s=0.01)
    call = await _dial(twilio, timeout=1)
    await _over(call)
    assert post.statuses() == ["initiated", "ringing", what]
    assert post.streams == []


async def test_a_ringing_call_can_be_canceled_and_an_answered_one_cannot(
    twilio: SimulatedTwilioRest, post: Post
) -> None:
    twilio.callees[THEIRS] = Callee(rings_s=20)
    call = await _dial(twilio)
    for _ in range(100):
        if twilio.calls[call.sid] == "ringing":
            break
        await asyncio.sleep(0.01)
    await asyncio.to_thread(lambda: _client(twilio).calls(call.sid).update(status="canceled"))
    await _over(call)
    assert post.statuses() == ["initiated", "ringing", "canceled"]
    assert await asyncio.to_thread(_refused, lambda: _client(twilio).calls(CALL).update(status="canceled")) == (
        400,
        21220,
    )


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (Order.TWICE, ["initiated", "initiated", "ringing", "ringing", "busy", "busy"]),
        (Order.REVERSED, ["busy", "ringing", "initiated"]),
        (Order.NEVER, []),
    ],
)
async def test_callbacks_come_as_they_are_told_to(
    twilio: SimulatedTwilioRest, post: Post, order: Order, told: list[str]
) -> None:
    twilio.callees[THEIRS] = Callee("busy", rings_s=0.01, order=order)
    await _over(await _dial(twilio))
    assert post.statuses() == told


async def test_other_twiml_ends_the_stream_and_the_call_goes_on(twilio: SimulatedTwilioRest, post: Post) -> None:
    call = await _dial(twilio)
    telephone = await call.picked_up()
    dial = "<Response><Dial><Number>+12025550177</Number></Dial></Response>"
    await asyncio.to_thread(lambda: _client(twilio).calls(call.sid).update(twiml=dial))
    await telephone.wait_ended()
    assert twilio.calls[call.sid] == "in-progress"
    await asyncio.to_thread(lambda: _client(twilio).calls(call.sid).update(status="completed"))
    await _over(call)
    assert post.statuses()[-1] == "completed"


async def test_a_machine_that_answers_is_reported_beside_the_call(twilio: SimulatedTwilioRest, post: Post) -> None:
    twilio.callees[THEIRS] = Callee(rings_s=0.01, answered_by="machine_start", recognised_s=0.01)
    call = await _dial(
        twilio, machine_detection="Enable", async_amd="true", async_amd_status_callback=PUBLIC + "/twilio/machine"
    )
    await call.picked_up()
    post.hang_up.set()
    await _over(call)
    assert [hook["AnsweredBy"] for hook in post.hooks if "AnsweredBy" in hook] == ["machine_start"]
