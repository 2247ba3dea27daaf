"""Hanging up through the carrier's REST API; and the simulator, checked with Twilio's own client."""

# Twilio's package has no types.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from tests.simulators.twilio_rest import SimulatedTwilioRest
from transports.twilio.rest import CarrierRefused, CarrierUnavailable, TwilioRest

CALL = "CA" + "1" * 32


@pytest.fixture
async def twilio() -> AsyncGenerator[SimulatedTwilioRest]:
    async with SimulatedTwilioRest(calls={CALL: "in-progress"}).running() as simulator:
        yield simulator


@pytest.fixture
async def rest(twilio: SimulatedTwilioRest) -> AsyncGenerator[TwilioRest]:
    client = TwilioRest(twilio.account_sid, twilio.auth_token, twilio.base_url)
    yield client
    await client.aclose()


class _Rerouted(TwilioHttpClient):
    """Twilio's HTTP client, sent to the simulator."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._base_url = base_url

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Response:
        return super().request(method, url.replace("https://api.twilio.com", self._base_url), *args, **kwargs)


async def test_hang_up_ends_the_call(twilio: SimulatedTwilioRest, rest: TwilioRest) -> None:
    await rest.hang_up(CALL)
    assert twilio.calls[CALL] == "completed"


async def test_hanging_up_a_call_that_is_over_or_unknown_is_no_error(
    twilio: SimulatedTwilioRest, rest: TwilioRest
) -> None:
    await rest.hang_up(CALL)
    await rest.hang_up(CALL)
    await rest.hang_up("CA-never-heard-of")
    assert twilio.calls == {CALL: "completed"}


async def test_a_call_id_cannot_reach_another_resource(twilio: SimulatedTwilioRest, rest: TwilioRest) -> None:
    await rest.hang_up(f"x/../{CALL}")
    assert twilio.calls[CALL] == "in-progress"


async def test_one_outage_is_ridden_out_and_two_are_reported(twilio: SimulatedTwilioRest, rest: TwilioRest) -> None:
    twilio.outages = [503]
    await rest.hang_up(CALL)
    assert twilio.calls[CALL] == "completed"
    twilio.outages = [500, 502]
    with pytest.raises(CarrierUnavailable) as caught:
        await rest.hang_up(CALL)
    assert (caught.value.status, caught.value.code) == (502, 20500)


async def test_a_carrier_that_asks_for_patience_is_not_asked_again_at_once(
    twilio: SimulatedTwilioRest, rest: TwilioRest
) -> None:
    twilio.outages = [429]
    with pytest.raises(CarrierUnavailable) as caught:
        await rest.hang_up(CALL)
    assert (caught.value.status, caught.value.code) == (429, 20429)
    assert len(twilio.requests) == 1


async def test_wrong_credentials_are_refused_once_and_not_shown(twilio: SimulatedTwilioRest) -> None:
    rest = TwilioRest(twilio.account_sid, "my-wrong-token", twilio.base_url)
    with pytest.raises(CarrierRefused) as caught:
        await rest.hang_up(CALL)
    await rest.aclose()
    assert caught.value.code == 20003
    assert "my-wrong-token" not in str(caught.value)
    assert len(twilio.requests) == 1


async def test_a_carrier_that_cannot_be_reached_is_a_typed_error() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    rest = TwilioRest("AC1", "t", f"http://127.0.0.1:{port}")
    with pytest.raises(CarrierUnavailable):
        await rest.hang_up(CALL)
    await rest.aclose()


async def test_a_carrier_that_never_answers_is_given_up(
    twilio: SimulatedTwilioRest, rest: TwilioRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transports.twilio.rest._DEADLINE_S", 0.1)
    twilio.stalled = True
    with pytest.raises(CarrierUnavailable):
        await rest.hang_up(CALL)


async def test_the_simulator_convinces_twilios_own_client(twilio: SimulatedTwilioRest) -> None:
    def talk() -> None:
        http = _Rerouted(twilio.base_url)
        client = Client(twilio.account_sid, twilio.auth_token, http_client=http)
        assert client.calls(CALL).fetch().status == "in-progress"
        assert client.calls(CALL).update(twiml="<Response/>").sid == CALL
        assert client.calls(CALL).update(status="completed").status == "completed"
        with pytest.raises(TwilioRestException) as over:
            client.calls(CALL).update(status="completed")
        assert (over.value.status, over.value.code) == (400, 21220)
        with pytest.raises(TwilioRestException) as unknown:
            client.calls("CA404").fetch()
        assert (unknown.value.status, unknown.value.code) == (404, 20404)
        with pytest.raises(TwilioRestException) as refused:
            Client(twilio.account_sid, "wrong", http_client=http).calls(CALL).fetch()
        assert (refused.value.status, refused.value.code) == (401, 20003)

    await asyncio.to_thread(talk)
    assert twilio.twiml[CALL] == "<Response/>"
