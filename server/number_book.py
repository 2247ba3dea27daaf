"""What numbers and SIP domains a carrier account has: asked once for all who want to know at the same time.

Hundreds of agents that register at once make one list of it, not one request each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from pipelines.clock import Clock
from transports.twilio.account import CarrierError, CarrierUnavailable
from transports.twilio.numbers import normalise
from transports.twilio.records import IncomingNumber, SipDomain, VoiceWebhook

KEPT: Final = 60.0
"""Seconds for which a list is believed."""
RECENT: Final = 5.0
"""Seconds after which a list is asked for again because something is not in it: it may have been bought just now."""

_Entry = TypeVar("_Entry")


class NumberCarrier(Protocol):
    """What is asked of a carrier account. All raise CarrierError."""

    async def numbers(self) -> list[IncomingNumber]:
        """All numbers of the account."""
        ...

    async def sip_domains(self) -> list[SipDomain]:
        """All SIP domains of the account."""
        ...

    async def set_number_webhook(self, number_sid: str, webhook: VoiceWebhook) -> IncomingNumber:
        """Send a number's calls there."""
        ...

    async def set_domain_webhook(self, domain_sid: str, webhook: VoiceWebhook) -> SipDomain:
        """Send a SIP domain's calls there."""
        ...


class _List(Generic[_Entry]):
    """One list of one account."""

    def __init__(self, read: Callable[[], Awaitable[dict[str, _Entry]]], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._read_at = self._failed_at = float("-inf")
        self._failure = ""
        self._one_at_a_time = asyncio.Lock()
        self.entries: dict[str, _Entry] = {}

    async def find(self, key: str) -> _Entry | None:
        """The entry; the list is read when it is old, or when it is not new and lacks it. Raises CarrierError: for
        everybody who asks within `RECENT`, so that an outage is not waited out by one after the other."""
        asked = self._clock.now()
        async with self._one_at_a_time:
            known = key in self.entries
            # Whoever waited here while somebody else read the list has the answer.
            if self._read_at < asked - (KEPT if known else RECENT):
                if self._failed_at > asked - RECENT:
                    raise CarrierUnavailable(self._failure)
                await self._refresh()
        return self.entries.get(key)

    async def _refresh(self) -> None:
        try:
            self.entries = await self._read()
        except CarrierError as error:
            self._failed_at, self._failure = self._clock.now(), str(error)
            raise
        self._read_at = self._clock.now()


@dataclass(frozen=True, slots=True)
class _Account:
    numbers: _List[IncomingNumber]
    domains: _List[SipDomain]


class NumberBook:
    """The lists of all accounts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._accounts: dict[NumberCarrier, _Account] = {}

    async def number(self, carrier: NumberCarrier, number: str) -> IncomingNumber | None:
        """The account's number of that normalised form. Raises CarrierError."""
        return await self._account(carrier).numbers.find(number)

    async def domain(self, carrier: NumberCarrier, host: str) -> SipDomain | None:
        """The account's SIP domain of that normalised name. Raises CarrierError."""
        return await self._account(carrier).domains.find(host)

    async def point_number(self, carrier: NumberCarrier, number: IncomingNumber, webhook: VoiceWebhook) -> None:
        """Send its calls there. Raises CarrierError."""
        changed = await carrier.set_number_webhook(number.sid, webhook)
        self._account(carrier).numbers.entries[normalise(number.phone_number)] = changed

    async def point_domain(self, carrier: NumberCarrier, domain: SipDomain, webhook: VoiceWebhook) -> None:
        """Send its calls there. Raises CarrierError."""
        changed = await carrier.set_domain_webhook(domain.sid, webhook)
        self._account(carrier).domains.entries[domain.domain_name.lower()] = changed

    def _account(self, carrier: NumberCarrier) -> _Account:
        account = self._accounts.get(carrier)
        if account is None:

            async def numbers() -> dict[str, IncomingNumber]:
                return {normalise(one.phone_number): one for one in await carrier.numbers()}

            async def domains() -> dict[str, SipDomain]:
                return {one.domain_name.lower(): one for one in await carrier.sip_domains()}

            account = _Account(_List(numbers, self._clock), _List(domains, self._clock))
            self._accounts[carrier] = account
        return account
