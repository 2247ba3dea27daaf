"""What `call.dial` asks for: who calls whom, and configured how; or what is wrong with it (behaviour §3.4)."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from server.agents.agent import Agent
from server.agents.channels import Channel, find_channel
from server.dial_progress import Outcome
from transports.twilio.numbers import is_e164, is_sip, normalise, reported
from wire.commands import CallDial
from wire.layers import Layer
from wire.resolve import Scope, read_layer

_SIP: Final = re.compile(r"sips?:[^@\s<>]+@[^@\s<>]+", re.IGNORECASE)
_MAX: Final = 256


class DialRefused(Exception):
    """Nobody is called. The text names the field at fault."""

    def __init__(self, error: str, code: str = "BAD_REQUEST") -> None:
        super().__init__(error)
        self.outcome = Outcome("failed", error, code)


@dataclass(frozen=True, slots=True)
class Parties:
    """Who calls whom, as the carrier is told. `channel` is the agent's own that the call goes out from, if any."""

    to: str
    caller: str
    channel: Channel | None


def parties(command: CallDial, channels: Collection[Channel]) -> Parties:
    """Check and complete both ends. Raises DialRefused."""
    to = callee(command.to)
    phones = [channel for channel in channels if channel.type == "phone"]
    wanted = command.from_.strip()
    if len(wanted) > _MAX:
        raise DialRefused("from: too long")
    if not wanted:
        return _from_the_only(phones, to)
    channel = find_channel(phones, wanted, "phone")
    if channel is not None:
        return _from_channel(channel, to)
    if not is_sip(to):
        raise DialRefused("from: is not one of the agent's phone channels")
    if not wanted.isprintable():
        raise DialRefused("from: has characters that cannot be shown")
    return Parties(to, reported(wanted) if is_e164(normalise(wanted)) else wanted, None)


def layers(command: CallDial, agent: Agent, channel: Channel | None) -> list[Layer]:
    """What the call is configured with, weakest first. Raises ConfigError.

    Of greetings only the dial's own counts: the agent's and the channel's are for those who call them.
    """
    said = read_layer(command.config, Scope.CALL)
    greeting = command.greeting.strip() or said.values.get("greeting") or ""
    own = Layer({**said.values, "greeting": greeting})
    return [agent.layer, *([channel.layer] if channel is not None else []), own]


def callee(raw: str) -> str:
    """Whom the carrier is to connect: a number in E.164 form, or a SIP address as it was written, since every part of
    it may matter there. Raises DialRefused."""
    text = raw.strip()
    if not text:
        raise DialRefused("to: whom to call is missing")
    if len(text) > _MAX:
        raise DialRefused("to: too long")
    if is_sip(text):
        if _SIP.fullmatch(text) is None:
            raise DialRefused("to: is not a SIP address of the form sip:user@host")
        return text
    number = normalise(text)
    if not is_e164(number):
        raise DialRefused("to: is neither a number in E.164 form (+12025550142) nor a sip: address")
    return number


def _from_the_only(phones: list[Channel], to: str) -> Parties:
    if len(phones) != 1:
        many = f"the agent has {len(phones)} phone channels" if phones else "the agent has no phone channel"
        raise DialRefused(f"from: missing, and {many}")
    return _from_channel(phones[0], to)


def _from_channel(channel: Channel, to: str) -> Parties:
    caller = reported(channel.ref)
    if is_sip(caller) and not is_sip(to):
        raise DialRefused("from: a SIP address can call SIP addresses only")
    return Parties(to, caller, channel)
