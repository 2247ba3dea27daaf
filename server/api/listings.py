"""From what the gateway knows to what `server.api.sdk` answers. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Final

from providers.catalogues.catalogue import CatalogueVoice
from providers.catalogues.languages import SpokenLanguage
from server.agents.agent import Agent
from server.agents.channels import Numbers
from server.api.shapes import (
    Account,
    AgentList,
    ChannelCount,
    ConnectedAgent,
    Language,
    Phone,
    PhoneList,
    PlanDetails,
    PlanLimits,
    Voice,
)
from server.organisations.roll import Organisation
from transports.twilio.numbers import is_e164, reported
from transports.twilio.records import IncomingNumber

UNLIMITED: Final = 999_999
"""What the command line shows as no limit."""


def voice(voice: CatalogueVoice) -> Voice:
    """One voice."""
    said: dict[str, Any] = {"gender": voice.gender, "style": voice.style, "description": voice.description}
    return Voice(
        id=voice.id,
        name=voice.name,
        alias=voice.alias,
        provider=voice.provider,
        languages=[_language(language) for language in voice.languages],
        preview_url=voice.preview_url,
        **{name: text for name, text in said.items() if text},
    )


@functools.lru_cache(maxsize=1024)
def _language(language: SpokenLanguage) -> Language:
    """Thousands of voices share a few of them."""
    said: dict[str, Any] = {"flag": language.flag, "native_name": language.native_name, "region": language.region}
    return Language(code=language.code, name=language.name, **{name: text for name, text in said.items() if text})


def phones(org_id: str, account: Iterable[IncomingNumber], numbers: Numbers) -> PhoneList:
    """Numbers of the account, and those of the organisation's agents that are not in it.

    Several organisations may share an account: a number that another one is on is not shown.
    """
    claimed: dict[str, bool] = {}
    for number, agents in numbers:
        claimed[number] = any(agent.org_id == org_id for agent in agents)
    rows = [
        Phone(
            number=number.phone_number,
            name=number.friendly_name or label(number.phone_number),
            sid=number.sid,
            is_sdk=claimed.get(number.phone_number, False),
        )
        for number in account
        if claimed.get(number.phone_number, True)
    ]
    listed = {row.number for row in rows}
    others = sorted(number for number, ours in claimed.items() if ours and number not in listed and is_e164(number))
    rows += [Phone(number=number, name=label(number), sid="", is_sdk=True) for number in others]
    return PhoneList(success=True, total=len(rows), phones=rows)


def label(number: str) -> str:
    """How people write a number: `(202) 555-0142` in North America, as it is elsewhere."""
    if len(number) == 12 and number.startswith("+1"):
        return f"({number[2:5]}) {number[5:8]}-{number[8:]}"
    return number


def agents(all_of_org: Iterable[Agent]) -> AgentList:
    """The agents that are connected, by name, and who answers on which number."""
    there = sorted((agent for agent in all_of_org if agent.online), key=lambda agent: agent.key.slug)
    production = {number: agent.key.slug for agent in there if agent.key.production for number in _phones(agent)}
    overrides: dict[str, str] = {}
    callers: set[str] = set()
    # Among several the one whose callers were named last gets them, so it is written last.
    for agent in sorted(there, key=lambda agent: 0.0 if agent.callers is None else agent.callers.set_at):
        if not agent.key.production:
            overrides |= dict.fromkeys(_phones(agent), agent.key.slug)
            callers |= frozenset() if agent.callers is None else agent.callers.numbers
    rows = [_agent(agent) for agent in there]
    return AgentList(
        success=True,
        total=len(rows),
        agents=rows,
        phone_map=production,
        dev_overrides=overrides,
        dev_callers=sorted(callers),
    )


def _agent(agent: Agent) -> ConnectedAgent:
    refs: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for channel in agent.channels.values():
        counts[channel.type] = counts.get(channel.type, 0) + 1
        named = refs.setdefault(channel.type, [])
        if channel.type == "phone":
            named.append(reported(channel.key))
        elif channel.ref != channel.type:
            named.append(channel.ref)
    return ConnectedAgent(
        slug=agent.key.slug,
        org_id=agent.key.org_id,
        phones=_phones(agent),
        active=True,
        channels={type_: ChannelCount(count=count, refs=refs[type_]) for type_, count in counts.items()},
    )


def _phones(agent: Agent) -> list[str]:
    return [reported(channel.key) for channel in agent.channels.values() if channel.type == "phone"]


def account(organisation: Organisation) -> Account:
    """What the command line shows of an organisation. Nothing is charged, so there is plenty of everything."""
    limits = organisation.limits
    return Account(
        name=organisation.name or organisation.org_id,
        slug=organisation.org_id,
        plan="self_hosted",
        plan_details=PlanDetails(
            display="Self-hosted",
            credits=UNLIMITED,
            limits=PlanLimits(
                phones=UNLIMITED,
                concurrent_calls=limits.calls or UNLIMITED,
                agents=limits.agents or UNLIMITED,
            ),
        ),
        credits=UNLIMITED,
        credit_limit=None,
        email="",
        verified=True,
    )
