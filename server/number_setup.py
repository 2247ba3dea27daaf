"""Numbers look after themselves: the carrier is told to send a number's calls here when an agent takes the number
(behaviour §3.9).

All of it happens behind the agents' backs, one number after the other: whatever goes wrong is a line in the log, and
no agent ever waits for it or is refused. Only `STRICT_PHONE_OWNERSHIP` refuses numbers that are in no account.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from server.agents.channels import Channel, Refusal
from server.agents.registry import AgentRegistry
from server.number_book import NumberBook, NumberCarrier
from server.store.base import AgentKey, StoreUnavailable
from transports.twilio.account import CarrierError
from transports.twilio.records import IncomingNumber, SipDomain, VoiceWebhook

log = structlog.get_logger(__name__)

PACE: Final = 0.2
"""Seconds between two changes."""
SETTLED: Final = 3600.0
"""Seconds for which a number that was seen to is not looked at again: agents come back after every lost connection."""
FAILED: Final = 60.0
"""The same after a failure."""
MAX_WAITING: Final = 10_000
"""Numbers that wait to be seen to; further ones are left alone, with a line in the log."""


@dataclass(frozen=True, slots=True)
class NumberRules:
    """What the operator decides."""

    carrier_of: Callable[[str], NumberCarrier | None]
    """The account of an organisation."""
    webhook: VoiceWebhook | None = None
    """Where calls are to go; None: numbers are left as they are."""
    strict: bool = False
    """Numbers that are in no account of the organisation are refused."""


@dataclass(frozen=True, slots=True)
class _Target:
    """What is to be set up: a number, or the host of SIP addresses."""

    org_id: str
    name: str
    production: bool
    """Whether a production agent wants it."""


class NumberSetup:
    """Sees to the numbers of this process' agents. `run` owns the work."""

    def __init__(self, registry: AgentRegistry, rules: NumberRules) -> None:
        self._registry = registry
        self._rules = rules
        self._clock = registry.clock
        self._book = NumberBook(registry.clock)
        self._waiting: dict[_Target, str] = {}
        """With the key of the channel that wanted it."""
        self._seen_to: dict[_Target, float] = {}
        """Until when they are not looked at again."""
        self._more = asyncio.Event()

    async def check(self, agent: AgentKey, channel: Channel) -> None:
        """Raises `Refusal` PHONE_NOT_IN_ORG for a number in no account of the agent's organisation, where that is to be
        so. A carrier that cannot be asked is no reason to refuse."""
        if not self._rules.strict or channel.type != "phone" or "@" in channel.key:
            return
        carrier = self._rules.carrier_of(agent.org_id)
        try:
            known = carrier is not None and await self._book.number(carrier, channel.key) is not None
        except CarrierError as error:
            log.warning("number_not_checked", org=agent.org_id, number=channel.key, error=str(error))
            return
        if not known:
            raise Refusal("PHONE_NOT_IN_ORG", "No account of this organisation has the number", phone=channel.ref)

    def added(self, agent: AgentKey, channel: Channel) -> None:
        """An agent has taken a number or a SIP address. Never blocks, never raises."""
        if self._rules.webhook is None or channel.type != "phone":
            return
        target = _Target(agent.org_id, channel.key.rpartition("@")[2], agent.production)
        if target in self._waiting or self._clock.now() < self._seen_to.get(target, 0.0):
            return
        if len(self._waiting) >= MAX_WAITING:
            log.warning("number_not_set_up", org=agent.org_id, number=target.name, error="too many numbers wait")
            return
        self._waiting[target] = channel.key
        self._more.set()

    async def run(self) -> None:
        """Set up what waits, one after the other. Runs until cancelled; start it once."""
        while True:
            if not self._waiting:
                self._more.clear()
                await self._more.wait()
                continue
            target = next(iter(self._waiting))
            changed, kept = False, FAILED
            try:
                changed = await self._set_up(target, self._waiting[target])
                kept = SETTLED
            except (CarrierError, StoreUnavailable) as error:
                self._failed(target, str(error))
            except Exception:
                # The root of this work: one number's trouble must not be the end of it.
                log.exception("number_setup_failed", org=target.org_id, number=target.name)
            self._remember(target, kept)
            # Nothing may have had to be waited for, and there may be thousands.
            await asyncio.sleep(PACE if changed else 0)

    async def _set_up(self, target: _Target, channel_key: str) -> bool:
        """See to one number; True when something was changed. Raises CarrierError, StoreUnavailable."""
        webhook = self._rules.webhook
        carrier = self._rules.carrier_of(target.org_id)
        if webhook is None or carrier is None:
            self._failed(target, "there is no carrier account")
            return False
        sip = "@" in channel_key
        found = await (self._book.domain(carrier, target.name) if sip else self._book.number(carrier, target.name))
        if found is None:
            self._failed(target, "not in the carrier account")
            return False
        if isinstance(found, IncomingNumber) and found.taken:
            log.info("number_left_alone", org=target.org_id, number=target.name, reason="trunk_or_application")
            return False
        if _points_at(found, webhook):
            return False
        if not target.production and await self._is_in_production(target, channel_key):
            log.info("number_left_alone", org=target.org_id, number=target.name, reason="production")
            return False
        if isinstance(found, IncomingNumber):
            await self._book.point_number(carrier, found, webhook)
        else:
            await self._book.point_domain(carrier, found, webhook)
        log.info("number_set_up", org=target.org_id, number=target.name, voice_url=webhook.url)
        return True

    async def _is_in_production(self, target: _Target, channel_key: str) -> bool:
        """Whether a production agent has the number, here or on another gateway."""
        for key, agents in self._registry.numbers:
            if key.rpartition("@")[2] == target.name and any(agent.production for agent in agents):
                return True
        return await self._registry.store.in_production(channel_key)

    def _failed(self, target: _Target, why: str) -> None:
        log.warning("number_not_set_up", org=target.org_id, number=target.name, error=why)

    def _remember(self, target: _Target, seconds: float) -> None:
        self._waiting.pop(target, None)
        now = self._clock.now()
        if len(self._seen_to) >= MAX_WAITING:
            self._seen_to = {one: until for one, until in self._seen_to.items() if until > now}
        self._seen_to[target] = now + seconds


def _points_at(found: IncomingNumber | SipDomain, webhook: VoiceWebhook) -> bool:
    told = found.status_callback if isinstance(found, IncomingNumber) else found.voice_status_callback_url
    return (found.voice_url, (found.voice_method or "").upper(), told) == (webhook.url, "POST", webhook.status_callback)
