"""What we ask of Twilio's REST API (2010-04-01). Each request takes at most 5 s and fails with a CarrierError."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from transports.twilio.account import Account, Ask
from transports.twilio.account import CarrierError as CarrierError
from transports.twilio.account import CarrierRefused as CarrierRefused
from transports.twilio.account import CarrierUnavailable as CarrierUnavailable
from transports.twilio.records import (
    Balance,
    CallRecord,
    DomainPage,
    IncomingNumber,
    NewCall,
    NumberPage,
    Page,
    SipDomain,
    VoiceWebhook,
)

_Entry = TypeVar("_Entry")
_PAGE = 1000
_PAGES = 20
"""More than 20,000 numbers are not looked at."""
_UNKNOWN_CALL = 20404
_NOT_IN_THAT_STATE = 21220


class TwilioRest:
    """One account. `base_url` is the origin of the API, e.g. a regional one."""

    def __init__(self, account_sid: str, auth_token: str, base_url: str = "https://api.twilio.com") -> None:
        self._account = Account(account_sid, auth_token, base_url)

    # --- calls ---

    async def create_call(self, call: NewCall) -> CallRecord:
        """Have somebody called; the record holds the call's id. Raises CarrierError.

        After a CarrierUnavailable without `status` the call may ring nevertheless: the request was sent, the answer
        never came.
        """
        return await self._account.ask(Ask("Calls.json", call.form(), twice=False), CallRecord)

    async def fetch_call(self, call_sid: str) -> CallRecord:
        """How a call fares. Raises CarrierError; `code` is 20404 for a call that Twilio does not know."""
        return await self._account.ask(Ask(_call(call_sid)), CallRecord)

    async def hang_up(self, call_sid: str) -> None:
        """End a call, be it in progress or not yet. Fine when it is over already. Raises CarrierError."""
        try:
            await self._update(call_sid, "Status", "completed")
        except CarrierRefused as error:
            if not _is_over(error):
                raise

    async def cancel(self, call_sid: str) -> None:
        """Stop ringing. A call that was picked up just now is ended; one that is over is fine. Raises CarrierError."""
        try:
            await self._update(call_sid, "Status", "canceled")
        except CarrierRefused as error:
            if error.code == _NOT_IN_THAT_STATE:
                await self.hang_up(call_sid)
            elif not _is_over(error):
                raise

    async def redirect(self, call_sid: str, twiml: str) -> None:
        """Let a call go on with other TwiML, which ends its media stream. Raises CarrierError."""
        await self._update(call_sid, "Twiml", twiml)

    # --- numbers and SIP domains ---

    async def numbers(self, phone_number: str | None = None) -> list[IncomingNumber]:
        """All numbers of the account, or the one of that E.164 form if the account has it. Raises CarrierError."""
        only = [] if phone_number is None else [("PhoneNumber", phone_number)]
        return await self._all("IncomingPhoneNumbers.json", NumberPage, only)

    async def set_number_webhook(self, number_sid: str, webhook: VoiceWebhook) -> IncomingNumber:
        """Send a number's calls there. Raises CarrierError."""
        form = [("VoiceUrl", webhook.url), ("VoiceMethod", "POST")]
        form += [("StatusCallback", webhook.status_callback), ("StatusCallbackMethod", "POST")]
        path = f"IncomingPhoneNumbers/{quote(number_sid, safe='')}.json"
        return await self._account.ask(Ask(path, form), IncomingNumber)

    async def sip_domains(self) -> list[SipDomain]:
        """All SIP domains of the account. Raises CarrierError."""
        return await self._all("SIP/Domains.json", DomainPage)

    async def set_domain_webhook(self, domain_sid: str, webhook: VoiceWebhook) -> SipDomain:
        """Send a SIP domain's calls there. Raises CarrierError."""
        form = [("VoiceUrl", webhook.url), ("VoiceMethod", "POST")]
        form += [("VoiceStatusCallbackUrl", webhook.status_callback), ("VoiceStatusCallbackMethod", "POST")]
        return await self._account.ask(Ask(f"SIP/Domains/{quote(domain_sid, safe='')}.json", form), SipDomain)

    # --- the account ---

    async def balance(self) -> Balance:
        """What is left. Raises CarrierError."""
        return await self._account.ask(Ask("Balance.json"), Balance)

    async def aclose(self) -> None:
        """Give the connections back. Idempotent."""
        await self._account.aclose()

    async def _update(self, call_sid: str, name: str, value: str) -> None:
        await self._account.ask(Ask(_call(call_sid), [(name, value)]), msgspec.Raw)

    async def _all(self, path: str, kind: type[Page[_Entry]], only: Sequence[tuple[str, str]] = ()) -> list[_Entry]:
        """One of the account's lists, page after page; `only` narrows it."""
        query = [("PageSize", str(_PAGE)), *only]
        found: list[_Entry] = []
        for _ in range(_PAGES):
            page = await self._account.ask(Ask(path, query=query), kind)
            found += page.entries
            if page.next_page_uri is None:
                break
            query = self._next(page.next_page_uri, path)
        return found

    def _next(self, uri: str, path: str) -> list[tuple[str, str]]:
        """The query of the next page. Only ever the same list of the same account: our credentials go with it."""
        parts = urlsplit(uri)
        if parts.scheme or parts.netloc or parts.path != self._account.root + path:
            raise CarrierUnavailable("Twilio names a next page that is none")
        return parse_qsl(parts.query)


def _call(call_sid: str) -> str:
    return f"Calls/{quote(call_sid, safe='')}.json"


def _is_over(error: CarrierRefused) -> bool:
    """Whether Twilio refused because the call has ended, or it never heard of it."""
    return error.code in (_UNKNOWN_CALL, _NOT_IN_THAT_STATE) or error.status == HTTPStatus.NOT_FOUND
