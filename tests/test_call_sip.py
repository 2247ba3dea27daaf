"""Calls over SIP: the domain's webhook names an address, and may carry headers (behaviour §3.10)."""

from __future__ import annotations

import pytest

from demo.dialling import Answer, Dial, Outcome
from server.agents.channels import Numbers
from server.store.base import AgentKey
from tests.call_facts import faultless as faultless
from tests.phone_rig import NUMBER, Rig, names, running
from tests.virtual_time import event_loop_policy as event_loop_policy
from transports.twilio.sip import sip_metadata

pytestmark = pytest.mark.usefixtures("faultless")

RECEPTION = "sip:reception@acme.sip.twilio.com"
NOT_TAKEN = Answer(Outcome.REJECTED, "rejected")


def sip_call(rig: Rig, to: str, caller: str = "sip:Alice@Example.com:5060;user=phone", **headers: str) -> Dial:
    """What Twilio's SIP domains send, beyond a telephone's call."""
    fields = {
        "SipDomain": "acme.sip.twilio.com",
        "SipDomainSid": "SD" + "0" * 32,
        "SipCallId": "b5f@10.0.0.1",
        "SipSourceIp": "10.0.0.1",
        **{f"SipHeader_{name}": value for name, value in headers.items()},
    }
    return Dial(rig.http, to, caller, fields=fields)


@pytest.mark.proves("row-18", "row-19")
@pytest.mark.parametrize("ref", [RECEPTION, "phone:" + RECEPTION, "SIPS:Reception@ACME.sip.twilio.com"])
@pytest.mark.parametrize(
    "to",
    [
        RECEPTION,
        "sip:Reception@acme.sip.us1.twilio.com:5061;transport=tls",
        "sips:reception@acme.sip.dublin.ie1.twilio.com;edge=dublin?X-A=b",
    ],
)
async def test_a_sip_address_reaches_its_agent_and_is_told_in_its_plain_form(ref: str, to: str) -> None:
    async with running() as rig:
        agent = await rig.agent("mara", ref)
        (added,) = [frame for frame in agent.frames if frame["event"] == "channel.added"]
        assert added["ref"] == ref
        caller = await rig.dialling(sip_call(rig, to))
        assert (await caller.ring()).outcome is Outcome.CONNECTED
        started = await agent.wait("call.started")
        assert (started["to"], started["from"]) == (RECEPTION, "sip:alice@example.com")
        assert (started["transport"], started["direction"], started["metadata"]) == ("phone", "inbound", {})
        await agent.say(started["call_id"], "Reception, good evening.", "m1")
        await agent.wait("bot.finished")


@pytest.mark.proves("row-19")
async def test_a_phone_prefix_is_stripped_and_a_number_dialled_over_sip_is_that_number() -> None:
    async with running() as rig:
        agent = await rig.agent("mara", "phone:" + NUMBER)
        caller = await rig.dialling(sip_call(rig, f"sip:{NUMBER}@acme.sip.twilio.com"))
        assert (await caller.ring()).outcome is Outcome.CONNECTED
        assert (await agent.wait("call.started"))["to"] == f"sip:{NUMBER}@acme.sip.twilio.com"


async def test_headers_of_the_invitation_are_in_the_metadata_of_both_ends_of_the_call() -> None:
    async with running() as rig:
        agent = await rig.agent("mara", RECEPTION)
        caller = await rig.dialling(sip_call(rig, RECEPTION, **{"X-Customer": 'Ana "A." Díaz', "X-Empty": ""}))
        await caller.ring()
        expected = {"sip_headers": {"X-Customer": 'Ana "A." Díaz', "X-Empty": ""}}
        assert (await agent.wait("call.started"))["metadata"] == expected
        await caller.hang_up()
        ended = await agent.wait("call.ended")
        assert ended["metadata"] == expected
        assert names(agent.of_call(caller.dial.call_sid)) == ["call.started", "call.ended"]


async def test_an_address_that_two_agents_share_by_user_only_is_nobodys() -> None:
    async with running() as rig:
        await rig.agent("mara", RECEPTION)
        await rig.agent("bruno", "sip:reception@other.sip.twilio.com")
        elsewhere = await rig.dialling(sip_call(rig, "sip:reception@third.example"))
        assert await elsewhere.ring() == NOT_TAKEN


async def test_a_user_alone_is_enough_where_only_one_agent_has_it() -> None:
    async with running() as rig:
        agent = await rig.agent("mara", RECEPTION)
        caller = await rig.dialling(sip_call(rig, "sip:reception@trunk.twilio.com"))
        await caller.ring()
        assert (await agent.wait("call.started"))["to"] == "sip:reception@trunk.twilio.com"


def test_a_users_name_is_looked_for_among_agents_that_the_call_may_be_for() -> None:
    numbers = Numbers()
    ours, theirs = AgentKey("org_main", "mara"), AgentKey("org_two", "zoe")
    numbers.put("desk@acme.sip.twilio.com", ours)
    numbers.put("desk@other.example", theirs)
    assert numbers.called("sip:desk@third.example")[1] == []
    assert numbers.called("sip:desk@third.example", lambda org_id: org_id == "org_main")[1] == [ours]
    numbers.put(NUMBER, theirs)
    assert numbers.called(f"sip:{NUMBER[1:]}@x.example")[1] == [theirs]
    assert numbers.called(f"sip:{NUMBER}@x.example", lambda org_id: org_id == "org_main")[1] == []


def test_what_is_no_header_is_no_metadata_and_there_is_an_end_to_them() -> None:
    assert sip_metadata({"SipDomain": "x", "From": "y", "SipHeader_": "z"}) == {}
    many = sip_metadata({f"SipHeader_X-{number}": "v" * 5000 for number in range(100)})
    assert len(bytes(many["sip_headers"])) < 70_000
