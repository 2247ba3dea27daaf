"""What is known of every organisation now: its keys, its limits, its credentials and its carrier account.

Sources tell it everything they list whenever that has changed (`learn`); look-ups never wait.
"""

from __future__ import annotations

import structlog

from server.auth import Keys, Source
from server.organisations.roll import Limits, Organisation, Roll, TwilioAccess

log = structlog.get_logger(__name__)


class Organisations:
    """All organisations. An organisation that no source describes has no limits and nothing of its own."""

    def __init__(self, keys: Keys, server_twilio: TwilioAccess | None = None) -> None:
        """`server_twilio` is the account of organisations that have none of their own."""
        self.keys = keys
        self._server_twilio = server_twilio
        self._rolls: dict[Source, Roll] = {}
        self._all: dict[str, Organisation] = {}
        self._accounts: dict[str, dict[str, TwilioAccess]] = {}

    def of(self, org_id: str) -> Organisation:
        """That organisation."""
        return self._all.get(org_id) or Organisation(org_id)

    def all(self) -> list[Organisation]:
        """Every organisation that a source describes."""
        return list(self._all.values())

    def limits(self, org_id: str) -> Limits:
        """How much it may do at one time."""
        return self.of(org_id).limits

    def carrier(self, org_id: str) -> TwilioAccess | None:
        """The account that this organisation's calls go through: its own, else the server's, if there is one."""
        return self.of(org_id).twilio or self._server_twilio

    def carrier_of_account(self, account_sid: str) -> TwilioAccess | None:
        """How to verify what that account says: an organisation's own account, else the server's."""
        owners = self._accounts.get(account_sid)
        return next(iter(owners.values())) if owners else self._server_twilio

    def carriers(self) -> list[TwilioAccess]:
        """Every account there is, the server's first."""
        own = [access for owners in self._accounts.values() for access in owners.values()]
        return list(dict.fromkeys([*([self._server_twilio] if self._server_twilio is not None else []), *own]))

    def may_ring(self, account_sid: str, org_id: str) -> bool:
        """Whether calls that come through that account may reach that organisation.

        What an organisation's own account says counts for that organisation alone: it could say anything.
        """
        owners = self._accounts.get(account_sid)
        if not owners or org_id in owners:
            return True
        shared = self._server_twilio is not None and self._server_twilio.account_sid == account_sid
        return shared and self.of(org_id).twilio is None

    def learn(self, source: Source, roll: Roll) -> None:
        """That is all there is in that source now."""
        self._rolls[source] = roll
        merged: dict[str, Organisation] = {}
        for known in sorted(self._rolls, reverse=True):
            merged |= self._rolls[known].organisations
        self._all = merged
        self._accounts = {}
        for one in merged.values():
            if one.twilio is not None:
                self._accounts.setdefault(one.twilio.account_sid, {})[one.org_id] = one.twilio
        self.keys.learn(source, [(key.digest, key.org_id) for key in roll.keys])
        log.info(
            "organisations_read",
            source=source.name.lower(),
            organisations=len(roll.organisations),
            keys=len(roll.keys),
        )
