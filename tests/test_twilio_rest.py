"""What we ask of the carrier's REST API, and what we make of its refusals."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator

import pytest
from fastapi.responses import JSONResponse

from tests.simulators.twilio_resources import Domain
from tests.simulators.twilio_rest import SimulatedTwilioRest
from transports.twilio.records import Balance, NewCall, VoiceWebhook
from transports.twilio.rest import CarrierRefused, CarrierUnavailable, TwilioRest

CALL = "CA" + "1" * 32
OURS = "+13186330963"
THEIRS = "+12025550142"
HOOK = VoiceWebhook("https://voice.example/twilio/voice", "https://voice.example/twilio/status")


@pytest.fixture
async def twilio() -> AsyncGenerator[SimulatedTwilioRest]:
    async with SimulatedTwilioRest(calls={CALL: "in-progress"}).running() as simulator:
        yield simulator


@pytest.fixture
async def rest(twilio: SimulatedTwilioRest) -> AsyncGenerator[TwilioRest]:
    client = TwilioRest(twilio.account_sid, twilio.auth_token, twilio.base_url)
    yield client
    await client.aclose()


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
    monkeypatch.setattr("transports.twilio.account.DEADLINE_S", 0.1)
    twilio.stalled = True
    with pytest.raises(CarrierUnavailable):
        await rest.hang_up(CALL)


async def test_a_new_call_carries_all_it_was_told(twilio: SimulatedTwilioRest, rest: TwilioRest) -> None:
    twilio.own(OURS)
    order = NewCall(THEIRS, OURS, url=HOOK.url, status_callback=HOOK.status_callback, detect_machine=True)
    made = await rest.create_call(order)
    call = await twilio.dialled()
    assert (made.sid, made.status, made.to, made.caller) == (call.sid, "queued", THEIRS, OURS)
    assert call.form.get("Timeout") == "25"
    assert call.form.all("StatusCallbackEvent") == ["initiated", "ringing", "answered", "completed"]
    assert (call.form.get("MachineDetection"), call.form.get("MachineDetectionTimeout")) == ("Enable", "5")
    assert (await rest.fetch_call(made.sid)).sid == made.sid


async def test_a_call_that_may_have_been_made_is_not_made_again(twilio: SimulatedTwilioRest, rest: TwilioRest) -> None:
    twilio.own(OURS)
    twilio.outages = [500]
    with pytest.raises(CarrierUnavailable):
        await rest.create_call(NewCall(THEIRS, OURS, twiml="<Response/>"))
    assert len(twilio.requests) == 1


async def test_a_short_wait_that_the_carrier_asks_for_is_granted(twilio: SimulatedTwilioRest, rest: TwilioRest) -> None:
    twilio.own(OURS)
    twilio.outages, twilio.retry_after = [429], "0.05"
    assert (await rest.create_call(NewCall(THEIRS, OURS, twiml="<Response/>"))).status == "queued"
    twilio.outages, twilio.retry_after = [429], "60"
    with pytest.raises(CarrierUnavailable) as caught:
        await rest.create_call(NewCall(THEIRS, OURS, twiml="<Response/>"))
    assert caught.value.retry_after == 60


async def test_a_number_that_cannot_be_called_is_refused_with_twilios_code(
    twilio: SimulatedTwilioRest, rest: TwilioRest
) -> None:
    with pytest.raises(CarrierRefused) as caught:
        await rest.create_call(NewCall("12", OURS, twiml="<Response/>"))
    assert (caught.value.status, caught.value.code) == (400, 21211)


async def test_a_ringing_call_is_canceled_and_one_just_answered_is_ended(
    twilio: SimulatedTwilioRest, rest: TwilioRest
) -> None:
    twilio.calls["CAringing"] = "ringing"
    await rest.cancel("CAringing")
    await rest.cancel(CALL)
    await rest.cancel(CALL)
    await rest.cancel("CA-never-heard-of")
    assert twilio.calls == {CALL: "completed", "CAringing": "canceled"}


async def test_numbers_come_from_all_pages_and_can_be_pointed_at_us(
    twilio: SimulatedTwilioRest, rest: TwilioRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transports.twilio.rest._PAGE", 2)
    twilio.own(OURS, THEIRS, "+12025550143", "+12025550144", "+12025550145")
    assert [number.phone_number for number in await rest.numbers()] == [n.phone_number for n in twilio.numbers]
    (ours,) = await rest.numbers(OURS)
    assert not ours.taken
    changed = await rest.set_number_webhook(ours.sid, HOOK)
    assert (changed.voice_url, changed.voice_method) == (HOOK.url, "POST")
    assert twilio.numbers[0].status_callback == HOOK.status_callback
    assert await rest.numbers("+19999999999") == []


async def test_sip_domains_come_from_all_pages_and_can_be_pointed_at_us(
    twilio: SimulatedTwilioRest, rest: TwilioRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transports.twilio.rest._PAGE", 1)
    twilio.domains += [Domain(twilio.account_sid, f"{name}.sip.twilio.com") for name in ("acme", "zeta")]
    acme, zeta = await rest.sip_domains()
    assert (acme.domain_name, zeta.domain_name) == ("acme.sip.twilio.com", "zeta.sip.twilio.com")
    assert (await rest.set_domain_webhook(zeta.sid, HOOK)).voice_url == HOOK.url
    assert twilio.domains[1].voice_status_callback_url == HOOK.status_callback


async def test_a_next_page_elsewhere_is_never_asked_for(
    twilio: SimulatedTwilioRest, rest: TwilioRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*_: object) -> JSONResponse:
        return JSONResponse({"domains": [], "next_page_uri": "https://thief.example/Domains.json?Page=1"})

    monkeypatch.setattr("tests.simulators.twilio_rest.page", elsewhere)
    with pytest.raises(CarrierUnavailable):
        await rest.sip_domains()


async def test_the_balance_is_text(rest: TwilioRest) -> None:
    assert await rest.balance() == Balance("41.07", "USD")


async def test_an_answer_that_cannot_be_read_is_a_typed_error(twilio: SimulatedTwilioRest, rest: TwilioRest) -> None:
    twilio.balance = 41.07  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(CarrierUnavailable):
        await rest.balance()
