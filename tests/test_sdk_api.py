"""The HTTP API that SDKs and the command line ask, byte for byte as they read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from providers.catalogues.catalogue import CatalogueVoice
from server.api import listings
from server.api.shapes import Voice
from server.api.voice_answers import VoiceAnswers
from server.settings import Settings
from tests.client_rig import Client
from tests.door_rig import KEY_A, KEY_B, PUBLISHABLE_A, Door, opened
from tests.json_schema import misfits
from tests.simulators.elevenlabs import ElevenLabsSimulator
from tests.simulators.twilio_resources import Number
from tests.simulators.twilio_rest import SimulatedTwilioRest
from tests.test_voices import NADIA, elevenlabs_voice

OURS = "+12025550142"
FREE = "+13186330963"
FOREIGN = "+442071838750"
CALLER = "+34600000001"
A = {"Authorization": f"Bearer {KEY_A}"}
B = {"Authorization": f"Bearer {KEY_B}"}

VOICES = "/api/sdk/voices"
NUMBERS = "/api/sdk/phone-numbers"
BALANCE = "/api/sdk/twilio-balance"
AGENTS = "/api/sdk/agents"


def _account(twilio: SimulatedTwilioRest) -> dict[str, Any]:
    return {
        "twilio_account_sid": twilio.account_sid,
        "twilio_auth_token": twilio.auth_token,
        "twilio_base_url": twilio.base_url,
    }


def _vendor(vendor: ElevenLabsSimulator) -> dict[str, Any]:
    return {
        "elevenlabs_api_key": vendor.key,
        "elevenlabs_base_url": vendor.base_url,
        "elevenlabs_ws_url": vendor.ws_url,
    }


@asynccontextmanager
async def with_carrier(**settings: Any) -> AsyncGenerator[tuple[Door, SimulatedTwilioRest]]:
    async with SimulatedTwilioRest().running() as twilio, opened(**_account(twilio), **settings) as door:
        yield door, twilio


async def _on(client: Client, number: str, agent_id: str = "mara", type_: str = "phone") -> None:
    added = await client.ask("channel.add", agent_id=agent_id, type=type_, ref=number)
    assert added["event"] == "channel.added", added


def _refusal(response: httpx2.Response) -> str:
    """The code of an error that every reader understands."""
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    body = response.json()
    assert body.keys() == {"success", "error", "detail", "code"}
    assert body["success"] is False
    assert body["error"] == body["detail"] != ""
    return body["code"]


# --- voices ---


@pytest.mark.proves("row-173")
async def test_voices_come_as_every_sdk_reads_them() -> None:
    plain = elevenlabs_voice("v2", "Tom")
    async with ElevenLabsSimulator(catalogue=[NADIA, plain]) as vendor, opened(**_vendor(vendor)) as door:
        answer = await door.http.get(VOICES, params={"provider": "elevenlabs"})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "Español" in answer.text
        spanish = {"code": "es", "name": "Spanish", "flag": "🇪🇸", "nativeName": "Español", "region": "ES"}
        french = {"code": "fr", "name": "French", "flag": "🇫🇷", "nativeName": "Français", "region": "FR"}
        nadia = {
            "id": "v_9f31ab",
            "name": "Nadia - Calm, Narration",
            "alias": "nadia",
            "provider": "elevenlabs",
            "gender": "female",
            "style": "very calm",
            "description": "Low and steady",
            "languages": [spanish, french],
            "preview_url": "https://cdn.example/nadia.mp3",
        }
        tom: dict[str, object] = {
            "id": "v2",
            "name": "Tom",
            "alias": "tom",
            "provider": "elevenlabs",
            "languages": [],
            "preview_url": None,
        }
        assert answer.json() == {"success": True, "total": 2, "voices": [nadia, tom]}
        assert (await door.http.get(f"{door.url}/{VOICES}")).json()["total"] == 2, (
            "elevenlabs unless told otherwise, `//` or not"
        )


@pytest.mark.proves("row-173")
async def test_voices_are_filtered_by_the_beginning_of_a_language_in_any_case() -> None:
    async with ElevenLabsSimulator(catalogue=[NADIA]) as vendor, opened(**_vendor(vendor)) as door:
        for language, total in (("es", 1), ("ES", 1), ("f", 1), ("de", 0), ("", 1)):
            found = (await door.http.get(VOICES, params={"provider": "elevenlabs", "language": language})).json()
            assert (found["success"], found["total"], len(found["voices"])) == (True, total, total)


async def test_every_provider_has_its_voices_and_a_stranger_none() -> None:
    async with opened() as door:
        for provider, voice in (("polly", "Joanna"), ("local", "en-gb"), ("LOCAL", "en-gb")):
            found = (await door.http.get(VOICES, params={"provider": provider})).json()["voices"]
            assert voice in [one["id"] for one in found]
        for provider in ("elevenlabs", "cartesia", "nobody", "../../etc"):
            answer = await door.http.get(VOICES, params={"provider": provider})
            assert (answer.status_code, answer.json()) == (200, {"success": True, "total": 0, "voices": []})


async def test_only_a_vendor_that_never_answered_is_an_error() -> None:
    async with ElevenLabsSimulator(catalogue=[NADIA]) as vendor, opened(**_vendor(vendor)) as door:
        vendor.catalogue_outages = [503]
        answer = await door.http.get(VOICES)
        assert (answer.status_code, _refusal(answer)) == (502, "VOICES_UNAVAILABLE")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert vendor.key not in answer.text


async def test_a_wrong_key_hides_no_voices_and_a_crowd_is_one_question_to_the_vendor() -> None:
    async with (
        ElevenLabsSimulator(catalogue=[NADIA]) as vendor,
        opened(**_vendor(vendor), api_requests_per_second=0) as door,
    ):
        wrong = {"Authorization": "Bearer pk_wrong"}
        answers = await asyncio.gather(*(door.http.get(VOICES, headers=wrong) for _ in range(100)))
        assert {answer.json()["total"] for answer in answers} == {1}
        assert vendor.listings == 1


async def test_a_list_is_written_once_however_often_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = listings.voice

    def counted(voice: CatalogueVoice) -> Voice:
        written.append(voice.id)
        return write(voice)

    monkeypatch.setattr(listings, "voice", counted)
    async with ElevenLabsSimulator(catalogue=[NADIA]) as vendor, opened(**_vendor(vendor)) as door:
        for language in ("", "es", "de", "es"):
            assert (await door.http.get(VOICES, params={"language": language})).json()["total"] == (language != "de")
        assert written == ["v_9f31ab"]


def test_lists_that_nobody_asks_for_any_more_are_let_go() -> None:
    answers = VoiceAnswers()
    for number in range(100):
        answers.answer((CatalogueVoice(id=f"v{number}", name="Tom", provider="elevenlabs"),), "")
    assert len(answers) < 50


# --- numbers and balance ---


@pytest.mark.proves("row-174")
async def test_numbers_are_those_of_the_account_and_those_agents_are_on() -> None:
    async with with_carrier() as (door, twilio):
        twilio.numbers = [
            Number(twilio.account_sid, OURS, "(202) 555-0142", sid="PN0a1b"),
            Number(twilio.account_sid, FREE, sid="PN2"),
        ]
        mara = await door.agent()
        for ref in (OURS, FOREIGN, "+12125550100", "sip:desk@acme.sip.twilio.com"):
            await _on(mara, ref)
        answer = await door.http.get(NUMBERS, headers=A)
        assert answer.status_code == 200
        assert answer.json() == {
            "success": True,
            "total": 4,
            "phones": [
                {"number": OURS, "name": "(202) 555-0142", "sid": "PN0a1b", "isSdk": True},
                {"number": FREE, "name": FREE, "sid": "PN2", "isSdk": False},
                {"number": "+12125550100", "name": "(212) 555-0100", "sid": "", "isSdk": True},
                {"number": FOREIGN, "name": FOREIGN, "sid": "", "isSdk": True},
            ],
        }


async def test_a_number_another_organisation_is_on_is_not_shown() -> None:
    async with with_carrier() as (door, twilio):
        twilio.own(OURS, FREE)
        await _on(await door.agent(), OURS)
        seen = [phone["number"] for phone in (await door.http.get(NUMBERS, headers=B)).json()["phones"]]
        assert seen == [FREE]


@pytest.mark.proves("row-174")
async def test_numbers_without_a_carrier_are_what_is_known() -> None:
    known = {
        "success": True,
        "total": 1,
        "phones": [{"number": OURS, "name": "(202) 555-0142", "sid": "", "isSdk": True}],
    }
    async with opened() as door:
        await _on(await door.agent(), OURS)
        assert (await door.http.get(NUMBERS, headers=A)).json() == known
    async with with_carrier() as (door, twilio):
        twilio.own(FREE)
        twilio.outages = [500, 500]
        await _on(await door.agent(), OURS)
        assert (await door.http.get(NUMBERS, headers=A)).json() == known


@pytest.mark.proves("row-175")
async def test_the_balance_is_text_and_every_failure_says_so() -> None:
    async with with_carrier() as (door, twilio):
        answer = await door.http.get(BALANCE, headers=A)
        assert (answer.status_code, answer.json()) == (200, {"success": True, "balance": "41.07", "currency": "USD"})
        assert _refusal(await door.http.get(BALANCE)) == "UNAUTHORIZED"
        twilio.outages = [500, 500]
        answer = await door.http.get(BALANCE, headers=A)
        assert (answer.status_code, _refusal(answer)) == (502, "CARRIER_UNAVAILABLE")
        assert twilio.auth_token not in answer.text
    async with opened() as door:
        answer = await door.http.get(BALANCE, headers=A)
        assert (answer.status_code, _refusal(answer)) == (200, "NO_CARRIER")


# --- agents ---


@pytest.mark.proves("row-202")
async def test_agents_are_shown_with_their_channels_and_who_answers_where() -> None:
    async with opened() as door:
        mara = await door.agent()
        await _on(mara, OURS)
        await _on(mara, "", type_="webrtc")
        await _on(mara, "sip:desk@acme.sip.us1.twilio.com")
        dev = await door.agent("dev-berna-mara")
        await _on(dev, OURS, "dev-berna-mara")
        await dev.ask("dev.config", callers=[CALLER])
        await door.agent("mara", KEY_B)
        sip = "sip:desk@acme.sip.twilio.com"
        assert (await door.http.get(AGENTS, headers=A)).json() == {
            "success": True,
            "total": 2,
            "agents": [
                {
                    "slug": "dev-berna-mara",
                    "org_id": "org_a",
                    "phones": [OURS],
                    "active": True,
                    "channels": {"phone": {"count": 1, "refs": [OURS]}},
                },
                {
                    "slug": "mara",
                    "org_id": "org_a",
                    "phones": [OURS, sip],
                    "active": True,
                    "channels": {"phone": {"count": 2, "refs": [OURS, sip]}, "webrtc": {"count": 1, "refs": []}},
                },
            ],
            "phone_map": {OURS: "mara", sip: "mara"},
            "dev_overrides": {OURS: "dev-berna-mara"},
            "dev_callers": [CALLER],
        }
        alone = (await door.http.get(AGENTS, headers=B)).json()
        assert [agent["org_id"] for agent in alone["agents"]] == ["org_b"]
        assert alone["agents"][0]["phones"] == []
        assert alone["agents"][0]["channels"] == {}


@pytest.mark.proves("row-202")
async def test_a_kicked_agent_is_told_and_its_name_is_free() -> None:
    async with opened() as door:
        holder = await door.agent()
        answer = await door.http.delete(f"{AGENTS}/MARA%20", headers=A)
        assert answer.json() == {"success": True, "displaced": "mara", "org_id": "org_a"}
        assert (await holder.receive()) == {"event": "agent.displaced", "agent_id": "mara", "reason": "kicked"}
        assert (await door.http.get(AGENTS, headers=A)).json()["agents"] == []
        await door.agent()
        gone = await door.http.delete(f"{AGENTS}/nobody", headers=A)
        assert (gone.status_code, _refusal(gone)) == (404, "AGENT_NOT_FOUND")


async def test_nobody_kicks_the_agent_of_another_organisation() -> None:
    async with opened() as door:
        await door.agent()
        assert (await door.http.delete(f"{AGENTS}/mara", headers=B)).status_code == 404
        assert (await door.http.get(AGENTS, headers=A)).json()["total"] == 1


# --- who may ask, and how often ---


@pytest.mark.parametrize("path", [NUMBERS, BALANCE, AGENTS, "/api/orgs/me", "/api/orgs/me/stats"])
async def test_what_belongs_to_an_organisation_needs_its_secret_key(path: str) -> None:
    async with opened() as door:
        for headers in ({}, {"Authorization": "Bearer pk_wrong"}, {"Authorization": f"Bearer {PUBLISHABLE_A}"}):
            answer = await door.http.get(path, headers=headers)
            assert (answer.status_code, _refusal(answer)) == (401, "UNAUTHORIZED")
        assert (await door.http.get(path, headers={"X-API-Key": KEY_A})).status_code == 200


async def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    async with opened(api_requests_per_second=1) as door:
        answers = [await door.http.get(VOICES, params={"provider": "polly"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert _refusal(answers[2]) == "RATE_LIMITED"
        assert answers[2].headers["retry-after"] == "1"


async def test_one_key_from_many_places_is_still_one_asker() -> None:
    async with opened(api_requests_per_second=1, forwarded_allow_ips="127.0.0.1") as door:
        statuses = [
            (await door.http.get(AGENTS, headers={**A, "X-Forwarded-For": f"192.0.2.{n}"})).status_code
            for n in range(3)
        ]
        assert statuses == [200, 200, 429]


async def test_a_query_that_cannot_be_is_refused_and_not_repeated() -> None:
    async with opened() as door:
        answer = await door.http.get(VOICES, params={"provider": "x" * 65})
        assert (answer.status_code, _refusal(answer)) == (400, "BAD_REQUEST")
        assert "xxx" not in answer.text


# --- the command line's organisation, and the schema ---


async def test_an_organisation_is_its_own_host() -> None:
    async with opened() as door:
        me = (await door.http.get("/api/orgs/me", headers=A)).json()
        assert (me["slug"], me["plan"], me["verified"], me["creditLimit"]) == ("org_a", "self_hosted", True, None)
        assert min(me["planDetails"]["limits"].values()) >= 999
        assert (await door.http.get("/api/orgs/me/stats", headers=A)).json() == {"managedPhones": 0}


async def test_every_answer_is_as_the_schema_says() -> None:
    async with ElevenLabsSimulator(catalogue=[NADIA]) as vendor, with_carrier(**_vendor(vendor)) as (door, twilio):
        twilio.own(FREE)
        await _on(await door.agent(), OURS)
        document = (await door.http.get("/openapi.json")).json()
        for path in (VOICES, NUMBERS, BALANCE, AGENTS, "/api/orgs/me", "/api/orgs/me/stats"):
            responses = document["paths"][path]["get"]["responses"]
            for headers in (A, {}):
                answer = await door.http.get(path, headers=headers)
                schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]
                assert misfits(answer.json(), schema, document) == [], path
        kick = document["paths"][AGENTS + "/{agent}"]["delete"]["responses"]
        for status in (200, 404):
            answer = await door.http.delete(f"{AGENTS}/mara", headers=A)
            assert answer.status_code == status
            schema = kick[str(status)]["content"]["application/json"]["schema"]
            assert misfits(answer.json(), schema, document) == []


async def test_the_schema_names_no_answer_that_never_comes_and_no_door_of_others() -> None:
    async with opened() as door:
        document = (await door.http.get("/openapi.json")).json()
        routes = [route for path in document["paths"].values() for route in path.values()]
        assert all("422" not in route["responses"] for route in routes)
        assert "HTTPValidationError" not in document["components"]["schemas"]
        assert not any(path.startswith("/twilio") for path in document["paths"])
        for page in ("/docs", "/redoc"):
            assert (await door.http.get(page)).status_code == 404


@pytest.mark.proves("row-184")
def test_the_gateway_listens_where_clients_expect_a_local_one() -> None:
    assert Settings(_env_file=None).port == 1337  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_who_watches_a_gateway_may_ask_for_its_status_alone(path: str) -> None:
    async with opened() as door:
        answer = await door.http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
