"""The carrier's API, by organisation: each calls through its own account, or through the server's."""

from __future__ import annotations

from server.organisations.directory import Organisations
from server.organisations.roll import TwilioAccess
from transports.twilio.rest import TwilioRest


class Carriers:
    """One client an account, made when it is first needed; accounts that are gone keep theirs for calls that go on."""

    def __init__(self, organisations: Organisations, base_url: str) -> None:
        self._organisations = organisations
        self._base_url = base_url
        self._clients: dict[TwilioAccess, TwilioRest] = {}

    def of(self, org_id: str) -> TwilioRest | None:
        """What this organisation's calls are ruled through; None where there is no account, or only its token."""
        access = self._organisations.carrier(org_id)
        if access is None or not access.account_sid:
            return None
        client = self._clients.get(access)
        if client is None:
            client = self._clients[access] = TwilioRest(access.account_sid, access.auth_token, self._base_url)
        return client

    async def aclose(self) -> None:
        """Give all connections back."""
        for client in self._clients.values():
            await client.aclose()
