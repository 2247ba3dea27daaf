"""Twilio: does each account take us in, and do its numbers and SIP domains send their calls here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final
from urllib.parse import urlsplit

import httpx2
import msgspec

from server.check.findings import Finding, Visit, failed, note, ok, warning
from server.check.machine import local_origin
from server.keys import SettingsError, load_or_create_key
from server.organisations.roll import TwilioAccess
from transports.twilio.numbers import normalise
from transports.twilio.records import Balance, IncomingNumber, SipDomain
from transports.twilio.rest import CarrierError, CarrierRefused, TwilioRest

_VOICE: Final = "/twilio/voice"
_SHOWN: Final = 5


class _Phones(msgspec.Struct):
    phones: list[str] = []


class _Agents(msgspec.Struct):
    agents: list[_Phones] = []


@dataclass(frozen=True, slots=True)
class _Line:
    """A number or a SIP domain, and where its calls go."""

    name: str
    voice_url: str | None
    taken: bool = False


async def check_carrier(visit: Visit) -> list[Finding]:
    """Every account there is."""
    accounts = visit.organisations.carriers()
    if not accounts:
        return [note("Twilio", "no account is set: no phone calls", "Set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN.")]
    used = await _numbers_of_agents(visit)
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(_account(visit, account, used)) for account in accounts]
    return [finding for task in asking for finding in task.result()]


async def _account(visit: Visit, account: TwilioAccess, used: frozenset[str]) -> list[Finding]:
    if not account.account_sid:
        text = "TWILIO_AUTH_TOKEN alone verifies webhooks; calls cannot be made, transferred or ended"
        return [note("Twilio", text, "Set TWILIO_ACCOUNT_SID, too.")]
    what = f"Twilio {account.account_sid[:6]}…{account.account_sid[-4:]}"
    rest = TwilioRest(account.account_sid, account.auth_token, visit.settings.twilio_base_url)
    try:
        balance = await rest.balance()
        lines = [_of_number(number) for number in await rest.numbers()]
        lines += [_of_domain(domain) for domain in await rest.sip_domains()]
    except CarrierRefused as error:
        advice = "Check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN (or `twilio` of the organisation)."
        return [failed(what, str(error), advice)]
    except CarrierError as error:
        return [failed(what, str(error), "Check network and proxy of this machine, and TWILIO_BASE_URL.")]
    finally:
        await rest.aclose()
    return [_balance(what, balance), *_webhooks(visit, what, lines, used)]


def _balance(what: str, balance: Balance) -> Finding:
    text = f"accepts the account; balance {balance.balance} {balance.currency}"
    try:
        empty = Decimal(balance.balance) <= 0
    except InvalidOperation:
        empty = False
    if empty:
        return warning(what, text, "Add credit: Twilio refuses calls of an account without any.")
    return ok(what, text)


def _webhooks(visit: Visit, what: str, lines: list[_Line], used: frozenset[str]) -> list[Finding]:
    public = visit.settings.public_url
    if not lines:
        return [note(what, "has no number and no SIP domain", "Buy a number, or add one to the account.")]
    if public is None:
        return [note(what, f"{len(lines)} numbers and SIP domains; without PUBLIC_URL they cannot be compared")]
    ours = _plain(public + _VOICE)
    here = [line for line in lines if not line.taken and _plain(line.voice_url or "") == ours]
    elsewhere = [line for line in lines if line not in here]
    advice = f"Set their voice webhook to {public}{_VOICE} (POST), in Twilio's console."
    lost = [line.name for line in elsewhere if normalise(line.name) in used]
    findings = [failed(what, f"agents wait for calls that go elsewhere: {_some(lost)}", advice)] if lost else []
    rest = [line.name for line in elsewhere if line.name not in lost]
    if here:
        findings.append(ok(what, f"calls of {_some([line.name for line in here])} come here"))
    elif visit.settings.twilio_auto_configure and not lost:
        findings.append(
            note(what, "nothing sends its calls here yet: agents point their numbers here when they register")
        )
    elif not lost:
        findings.append(warning(what, "no number and no SIP domain sends its calls here", advice))
    if rest and here:
        findings.append(note(what, f"calls of {_some(rest)} go elsewhere", advice))
    return findings


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _of_number(number: IncomingNumber) -> _Line:
    return _Line(number.phone_number, number.voice_url, number.taken)


def _of_domain(domain: SipDomain) -> _Line:
    return _Line(domain.domain_name, domain.voice_url)


def _plain(url: str) -> str:
    """An address as it is compared: case of the host, the default port and a slash at the end do not count."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return url
    default = {"https": 443, "http": 80}.get(parts.scheme)
    shown = f":{port}" if port not in (None, default) else ""
    return f"{parts.scheme}://{(parts.hostname or '').lower()}{shown}{parts.path.rstrip('/')}"


async def _numbers_of_agents(visit: Visit) -> frozenset[str]:
    """The numbers that agents have registered, as the running gateway tells them to keys that stand in the settings."""
    if not visit.running:
        return frozenset()
    keys = {one.organisation: one.key.get_secret_value() for one in visit.settings.organisation_keys}
    if not keys and (visit.settings.data_dir / "api_key").exists():
        try:
            keys["org_main"] = load_or_create_key(visit.settings.data_dir).key.get_secret_value()
        except SettingsError:
            keys = {}
    found: set[str] = set()
    for key in keys.values():
        try:
            address = local_origin(visit.settings) + "/api/sdk/agents"
            response = await visit.http.get(address, headers={"Authorization": f"Bearer {key}"}, timeout=2.0)
            agents = msgspec.json.decode(response.content, type=_Agents).agents
        except (httpx2.HTTPError, msgspec.MsgspecError):
            continue
        found.update(normalise(phone) for agent in agents for phone in agent.phones)
    return frozenset(found)
