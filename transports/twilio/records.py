"""What Twilio's REST API tells of calls, numbers, SIP domains and money (2010-04-01), and what a new call is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

_Entry = TypeVar("_Entry")

RING_SECONDS: Final = 25
"""Every SDK gives a dial up after 30 s; Twilio itself would ring for 60."""
DETECTION_SECONDS: Final = 5
CALL_EVENTS: Final = ("initiated", "ringing", "answered", "completed")


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call to be made. Either `twiml` (at most 4000 characters) or `url`, which is asked for it when it is answered.

    `to` and `caller` are E.164 numbers or `sip:` addresses. `detect_machine` has Twilio listen first who
    answered, for 5 s at most, and say so as `AnsweredBy` when it asks `url`; who answered hears silence meanwhile.
    """

    to: str
    caller: str
    twiml: str = ""
    url: str = ""
    status_callback: str = ""
    ring_seconds: int = RING_SECONDS
    detect_machine: bool = False

    def form(self) -> list[tuple[str, str]]:
        """As Twilio takes it; the events are one field each."""
        fields = [("To", self.to), ("From", self.caller), ("Timeout", str(self.ring_seconds))]
        fields.append(("Twiml", self.twiml) if self.twiml else ("Url", self.url))
        if self.status_callback:
            fields += [("StatusCallback", self.status_callback), ("StatusCallbackMethod", "POST")]
            fields += [("StatusCallbackEvent", event) for event in CALL_EVENTS]
        if self.detect_machine:
            fields += [("MachineDetection", "Enable"), ("MachineDetectionTimeout", str(DETECTION_SECONDS))]
        return fields


@dataclass(frozen=True, slots=True)
class VoiceWebhook:
    """Where a number or a SIP domain sends its calls, always with POST."""

    url: str
    status_callback: str


class CallRecord(msgspec.Struct, frozen=True):
    """A call; `status` is one of queued, ringing, in-progress, completed, busy, failed, no-answer, canceled."""

    sid: str
    status: str
    to: str | None = None
    caller: str | None = msgspec.field(name="from", default=None)
    direction: str | None = None
    duration: str | None = None
    """Whole seconds, once it is over."""
    answered_by: str | None = None


class IncomingNumber(msgspec.Struct, frozen=True):
    """A number of the account. Its voice webhook is ignored while an application or a trunk has it."""

    sid: str
    phone_number: str
    friendly_name: str | None = None
    voice_url: str | None = None
    voice_method: str | None = None
    status_callback: str | None = None
    voice_application_sid: str | None = None
    trunk_sid: str | None = None

    @property
    def taken(self) -> bool:
        """Whether something else than its voice webhook decides about its calls."""
        return bool(self.voice_application_sid or self.trunk_sid)


class SipDomain(msgspec.Struct, frozen=True):
    """`domain_name` is the host of its addresses, e.g. `acme.sip.twilio.com`."""

    sid: str
    domain_name: str
    friendly_name: str | None = None
    voice_url: str | None = None
    voice_method: str | None = None
    voice_status_callback_url: str | None = None


class Balance(msgspec.Struct, frozen=True):
    """What is left on the account, a decimal number as text."""

    balance: str
    currency: str


class Page(msgspec.Struct, Generic[_Entry], frozen=True, kw_only=True):
    """A part of one of the account's lists, and where the next part is."""

    entries: tuple[_Entry, ...]
    next_page_uri: str | None = None


class NumberPage(Page[IncomingNumber], frozen=True, kw_only=True):
    """Some of the account's numbers."""

    entries: tuple[IncomingNumber, ...] = msgspec.field(name="incoming_phone_numbers", default=())


class DomainPage(Page[SipDomain], frozen=True, kw_only=True):
    """Some of the account's SIP domains."""

    entries: tuple[SipDomain, ...] = msgspec.field(name="domains", default=())
