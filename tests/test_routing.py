"""Caller on number -> agent, as a table."""

from __future__ import annotations

import pytest

from server.agents.channels import Numbers
from server.routing import Candidate, Goes, Nobody, Wait, decide
from server.store.base import AgentKey, Callers

ANA = "+34600000001"
EVE = "+15550009999"
NOW = 1000.0


def on(slug: str, *callers: str, since: float | None = None, set_at: float = 1.0) -> Candidate:
    said = Callers(frozenset(callers), set_at) if callers else None
    return Candidate(AgentKey("org_main", slug), since is None, since, said)


def goes(slug: str) -> Goes:
    return Goes(AgentKey("org_main", slug))


MARA = on("mara")
AWAY = on("mara", since=NOW - 3)
LONG_AWAY = on("mara", since=NOW - 12)


@pytest.mark.parametrize(
    ("candidates", "caller", "decision"),
    [
        ([], ANA, Nobody("unknown_number")),
        ([MARA], ANA, goes("mara")),
        ([AWAY], ANA, Wait(AgentKey("org_main", "mara"))),
        ([LONG_AWAY], ANA, Nobody("agent_offline")),
        ([MARA, on("dev-ana-mara", ANA)], ANA, goes("dev-ana-mara")),
        ([MARA, on("dev-ana-mara", ANA)], EVE, goes("mara")),
        ([MARA, on("dev-ana-mara")], ANA, goes("mara")),
        ([MARA, on("dev-ana-mara", ANA, since=NOW - 1)], ANA, goes("mara")),
        ([on("staging-mara", ANA, set_at=9.0), on("dev-ana-mara", ANA)], ANA, goes("dev-ana-mara")),
        ([on("dev-a", ANA, set_at=1.0), on("dev-b", ANA, set_at=2.0)], ANA, goes("dev-b")),
        ([on("dev-ana-mara", ANA)], EVE, goes("dev-ana-mara")),
        ([on("dev-a", ANA), on("dev-b")], EVE, Nobody("not_a_caller")),
        ([on("dev-a", since=NOW - 1)], EVE, Nobody("agent_offline")),
        ([AWAY, on("dev-ana-mara", ANA)], ANA, goes("dev-ana-mara")),
        ([AWAY, on("dev-ana-mara")], ANA, Wait(AgentKey("org_main", "mara"))),
        ([LONG_AWAY, on("dev-ana-mara", ANA)], EVE, Nobody("agent_offline")),
    ],
)
def test_who_gets_the_call(candidates: list[Candidate], caller: str, decision: Goes | Wait | Nobody) -> None:
    assert decide(candidates, caller, NOW) == decision
    assert decide(candidates[::-1], caller, NOW) == decision


@pytest.mark.proves("row-18")
def test_a_sip_address_falls_back_to_the_only_one_with_that_user() -> None:
    numbers = Numbers()
    mara, zoe = AgentKey("o", "mara"), AgentKey("o", "zoe")
    numbers.put("desk@acme.sip.twilio.com", mara)
    assert numbers.called("sip:Desk@ACME.sip.us1.twilio.com:5061;transport=tls")[1] == [mara]
    assert numbers.called("sip:desk@elsewhere.example") == ("desk@acme.sip.twilio.com", [mara])
    assert numbers.called("sip:nobody@acme.sip.twilio.com")[1] == []
    numbers.put("desk@other.example", zoe)
    assert numbers.called("sip:desk@elsewhere.example")[1] == []
    numbers.take("desk@other.example", zoe)
    assert [key for key, _ in numbers] == ["desk@acme.sip.twilio.com"]
