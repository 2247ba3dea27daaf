"""Numbers look after themselves: webhooks set when agents take numbers, with the carrier's API on its wire."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.agents.channels import Channel
from server.number_setup import NumberRules, NumberSetup
from server.settings import Settings
from server.store.base import AgentKey
from tests.call_facts import faultless as faultless
from tests.client_rig import new_registry
from tests.phone_rig import NUMBER, Agent, Rig, running
from tests.simulators.twilio_resources import Domain
from tests.simulators.twilio_rest import SimulatedTwilioRest
from tests.virtual_time import event_loop_policy as event_loop_policy
from transports.twilio.account import CarrierRefused
from transports.twilio.records import IncomingNumber, SipDomain, VoiceWebhook
from wire.layers import Layer

PUBLIC = "https://voice.example"
VOICE, STATUS = PUBLIC + "/twilio/voice", PUBLIC + "/twilio/status"
ELSEWHERE = "https://other.example/voice"
CONFIG = {"voice": "elevenlabs:voice-1", "stt": "deepgram-flux"}

Log = list[dict[str, object]]


@asynccontextmanager
async def gateway(carrier: SimulatedTwilioRest, **settings: Any) -> AsyncGenerator[Rig]:
    chosen: dict[str, Any] = {
        "public_url": PUBLIC,
        "twilio_account_sid": carrier.account_sid,
        "twilio_auth_token": carrier.auth_token,
        "twilio_base_url": carrier.base_url,
        "twilio_auto_configure": True,
        **settings,
    }
    async with running(**chosen) as rig:
        yield rig


@asynccontextmanager
async def account(*numbers: str, **settings: Any) -> AsyncGenerator[tuple[Rig, SimulatedTwilioRest]]:
    """A gateway that sets numbers up, and the account that has them."""
    async with SimulatedTwilioRest().running() as carrier:
        carrier.own(*numbers)
        async with gateway(carrier, **settings) as rig:
            yield rig, carrier


async def channel(agent: Agent, ref: str, agent_id: str = "mara") -> dict[str, Any]:
    await agent.send("channel.add", agent_id=agent_id, type="phone", ref=ref)
    async with asyncio.timeout(20):
        while True:
            frame = agent.frames[-1]
            if frame["event"] in ("channel.added", "error") and ref in (frame.get("ref"), frame.get("phone")):
                return frame
            await asyncio.sleep(0.01)


def logged(log: Log, event: str) -> Log:
    return [entry for entry in log if entry["event"] == event]


def updates(carrier: SimulatedTwilioRest) -> int:
    return sum(method == "POST" for method, _ in carrier.requests)


async def test_a_number_is_pointed_here_when_an_agent_takes_it(faultless: Log) -> None:
    async with account(NUMBER) as (rig, carrier):
        await rig.agent()
        await asyncio.sleep(8)
        (number,) = carrier.numbers
        assert (number.voice_url, number.voice_method, number.status_callback) == (VOICE, "POST", STATUS)
        assert [entry["number"] for entry in logged(faultless, "number_set_up")] == [NUMBER]


async def test_a_number_that_points_here_already_is_left_as_it_is() -> None:
    async with account(NUMBER) as (rig, carrier):
        carrier.numbers[0].voice_url, carrier.numbers[0].status_callback = VOICE, STATUS
        agent = await rig.agent()
        await asyncio.sleep(8)
        assert updates(carrier) == 0
        # And not even looked at again when its agent comes back.
        asked = len(carrier.requests)
        agent.drop()
        await asyncio.sleep(8)
        await rig.agent()
        await asyncio.sleep(8)
        assert len(carrier.requests) == asked


@pytest.mark.parametrize("owner", ["trunk_sid", "voice_application_sid"])
async def test_a_number_of_a_trunk_or_an_application_is_left_alone(owner: str, faultless: Log) -> None:
    async with account(NUMBER) as (rig, carrier):
        setattr(carrier.numbers[0], owner, "TK" + "0" * 32)
        await rig.agent()
        await asyncio.sleep(8)
        assert updates(carrier) == 0
        assert logged(faultless, "number_left_alone")


async def test_a_sip_domain_is_pointed_here_whatever_its_users_are_called() -> None:
    async with account() as (rig, carrier):
        carrier.domains.append(Domain(carrier.account_sid, "acme.sip.twilio.com"))
        agent = await rig.agent("mara", "sip:reception@acme.sip.us1.twilio.com")
        await channel(agent, "sip:sales@ACME.sip.twilio.com")
        await asyncio.sleep(8)
        (domain,) = carrier.domains
        assert (domain.voice_url, domain.voice_method, domain.voice_status_callback_url) == (VOICE, "POST", STATUS)
        assert updates(carrier) == 1


async def test_a_development_agent_changes_no_number_that_production_has(faultless: Log) -> None:
    async with account(NUMBER) as (rig, carrier):
        await rig.agent("mara")
        await asyncio.sleep(8)
        carrier.numbers[0].voice_url = ELSEWHERE
        await asyncio.sleep(70)
        await rig.agent("dev-ana-mara")
        await asyncio.sleep(8)
        assert carrier.numbers[0].voice_url == ELSEWHERE
        assert [entry["reason"] for entry in logged(faultless, "number_left_alone")] == ["production"]


async def test_a_development_agent_sets_up_a_number_of_its_own() -> None:
    async with account(NUMBER) as (rig, carrier):
        carrier.numbers[0].voice_url = ELSEWHERE
        await rig.agent("dev-ana-mara")
        await asyncio.sleep(8)
        assert carrier.numbers[0].voice_url == VOICE


async def test_a_carrier_that_fails_is_one_warning_and_no_agent_notices(faultless: Log) -> None:
    async with account(NUMBER) as (rig, carrier):
        carrier.outages = [503] * 20
        agent = await rig.agent()
        await asyncio.sleep(30)
        assert len(logged(faultless, "number_not_set_up")) == 1
        assert agent.count("error") == 0
        # The next time the agent comes, it is tried again.
        carrier.outages = []
        agent.drop()
        await asyncio.sleep(60)
        await rig.agent()
        await asyncio.sleep(8)
        assert carrier.numbers[0].voice_url == VOICE


async def test_a_number_in_no_account_is_one_warning_and_still_the_agents(faultless: Log) -> None:
    async with account() as (rig, _):
        agent = await rig.agent()
        await asyncio.sleep(8)
        (warning,) = logged(faultless, "number_not_set_up")
        assert warning["error"] == "not in the carrier account"
        assert agent.count("channel.added") == 1


class Account:
    """An account in memory, where time costs nothing: hundreds of requests would not fit into a jumping clock."""

    def __init__(self, numbers: list[str]) -> None:
        self.all = {f"PN{place}": IncomingNumber(f"PN{place}", number) for place, number in enumerate(numbers)}
        self.lists = 0
        self.changes: list[float] = []

    async def numbers(self) -> list[IncomingNumber]:
        self.lists += 1
        await asyncio.sleep(1)
        return list(self.all.values())

    async def sip_domains(self) -> list[SipDomain]:
        return []

    async def set_number_webhook(self, number_sid: str, webhook: VoiceWebhook) -> IncomingNumber:
        await asyncio.sleep(0.05)
        self.changes.append(asyncio.get_running_loop().time())
        known = self.all[number_sid]
        self.all[number_sid] = IncomingNumber(known.sid, known.phone_number, voice_url=webhook.url)
        return self.all[number_sid]

    async def set_domain_webhook(self, domain_sid: str, webhook: VoiceWebhook) -> SipDomain:
        raise CarrierRefused("no such domain")


async def test_hundreds_of_numbers_at_once_make_one_list_and_changes_at_a_steady_pace() -> None:
    numbers = [f"+1202555{number:04d}" for number in range(200)]
    there = Account(numbers)
    rules = NumberRules(lambda _org_id: there, VoiceWebhook(VOICE, STATUS), strict=True)
    setup = NumberSetup(new_registry(), rules)
    channels = [Channel(number, "phone", number, Layer()) for number in numbers]
    agents = [AgentKey("org_main", f"a{place}") for place in range(len(numbers))]
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(setup.run())
        await asyncio.gather(*(setup.check(agent, one) for agent, one in zip(agents, channels, strict=True)))
        assert there.lists == 1
        for _ in range(3):
            for agent, one in zip(agents, channels, strict=True):
                setup.added(agent, one)
        await asyncio.sleep(90)
        work.cancel()
    assert {number.voice_url for number in there.all.values()} == {VOICE}
    assert len(there.changes) == 200
    assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(there.changes))
    assert there.lists <= 2


async def test_thousands_of_numbers_that_need_nothing_hold_nobody_up() -> None:
    setup = NumberSetup(new_registry(), NumberRules(lambda _org_id: None, VoiceWebhook(VOICE, STATUS)))
    for number in range(2000):
        name = f"+1202{number:07d}"
        setup.added(AgentKey("org_main", "mara"), Channel(name, "phone", name, Layer()))
    turns = 0
    with capture_logs() as logs:
        work = asyncio.create_task(setup.run())
        while len(logs) < 2000:
            await asyncio.sleep(0)
            turns += 1
        work.cancel()
    assert turns >= 2000


async def test_without_being_asked_to_the_gateway_changes_nothing() -> None:
    async with account(NUMBER, twilio_auto_configure=False) as (rig, carrier):
        await rig.agent()
        await asyncio.sleep(8)
        assert carrier.requests == []


def test_setting_numbers_up_needs_an_address_to_point_them_at() -> None:
    with pytest.raises(ValueError, match="PUBLIC_URL must be set when TWILIO_AUTO_CONFIGURE is"):
        Settings(_env_file=None, twilio_auto_configure=True)  # pyright: ignore[reportCallIssue]


# --- whose number ---


async def test_a_number_in_no_account_is_refused_where_that_is_the_rule() -> None:
    async with account(NUMBER, strict_phone_ownership=True, twilio_auto_configure=False) as (rig, carrier):
        agent = await rig.agent("mara", "+1 (318) 633-0963")
        refused = await channel(agent, "+12025550142")
        assert (refused["code"], refused["phone"], refused["agent_id"]) == ("PHONE_NOT_IN_ORG", "+12025550142", "mara")
        assert (await channel(agent, "sip:reception@acme.sip.twilio.com"))["event"] == "channel.added"
        # Bought a moment later.
        carrier.own("+12025550142")
        await asyncio.sleep(6)
        assert (await channel(agent, "+12025550142 "))["event"] == "channel.added"


async def test_without_an_account_no_number_is_anybodys_where_that_is_the_rule() -> None:
    async with running(strict_phone_ownership=True) as rig:
        agent = await rig.connected()
        await agent.ask("agent.create", "agent.created", agent_id="mara", **CONFIG)
        assert (await channel(agent, NUMBER))["code"] == "PHONE_NOT_IN_ORG"


async def test_a_carrier_that_cannot_be_asked_is_no_reason_to_refuse(faultless: Log) -> None:
    async with account(strict_phone_ownership=True, twilio_auto_configure=False) as (rig, carrier):
        carrier.outages = [503] * 50
        agents = await asyncio.gather(*(rig.agent(f"a{place}", f"+1202555{place:04d}") for place in range(10)))
        assert all(agent.count("channel.added") == 1 for agent in agents)
        assert len(logged(faultless, "number_not_checked")) == 10
        assert len(carrier.requests) <= 4
