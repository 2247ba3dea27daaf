"""What Twilio's REST API takes and how it says no: pure. Codes are those of its error reference."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


CREATE = _names(
    """To From Method FallbackUrl FallbackMethod StatusCallback StatusCallbackEvent StatusCallbackMethod SendDigits
    Timeout Record SipAuthUsername SipAuthPassword MachineDetection MachineDetectionTimeout
    MachineDetectionSpeechThreshold MachineDetectionSpeechEndThreshold MachineDetectionSilenceTimeout CallerId AsyncAmd
    AsyncAmdStatusCallback AsyncAmdStatusCallbackMethod CallReason CallToken TimeLimit Url Twiml ApplicationSid"""
)
UPDATE = _names("Url Method Status FallbackUrl FallbackMethod StatusCallback StatusCallbackMethod Twiml TimeLimit")
NUMBER = _names(
    """FriendlyName StatusCallback StatusCallbackMethod VoiceApplicationSid VoiceFallbackMethod VoiceFallbackUrl
    VoiceMethod VoiceUrl TrunkSid SmsUrl SmsMethod"""
)
DOMAIN = _names(
    """DomainName FriendlyName VoiceFallbackMethod VoiceFallbackUrl VoiceMethod VoiceStatusCallbackMethod
    VoiceStatusCallbackUrl VoiceUrl SipRegistration Secure"""
)
EVENTS = ("initiated", "ringing", "answered", "completed")

_MAX_TWIML = 4000
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_SIP = re.compile(r"sips?:[^@\s]+@[^@\s]+")


@dataclass(frozen=True)
class Refusal(Exception):
    """An error body of the API."""

    status: int
    code: int
    message: str

    def body(self) -> dict[str, object]:
        """As it goes over the wire."""
        more = f"https://www.twilio.com/docs/errors/{self.code}"
        return {"code": self.code, "message": self.message, "more_info": more, "status": self.status}


@dataclass
class SentForm:
    """An urlencoded body: all values of every name, in order. Raises Refusal for a name that nothing is called."""

    body: str
    names: frozenset[str]
    fields: list[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.fields = parse_qsl(self.body, keep_blank_values=True)
        for name, _ in self.fields:
            if name not in self.names:
                # Twilio overlooks such a field. Nobody sends one on purpose.
                raise Refusal(400, 20001, f"Unknown parameter {name}")

    def __contains__(self, name: str) -> bool:
        return any(name == known for known, _ in self.fields)

    def get(self, name: str, default: str = "") -> str:
        """The last value of that name."""
        return next((value for known, value in reversed(self.fields) if known == name), default)

    def all(self, name: str) -> list[str]:
        """All values of that name."""
        return [value for known, value in self.fields if known == name]


def is_sip(address: str) -> bool:
    """Whether a call to or from it goes over SIP."""
    return _SIP.fullmatch(address) is not None


def is_url(text: str) -> bool:
    """Whether Twilio would call that address."""
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.hostname != "localhost"


def check_new_call(form: SentForm, ours: set[str]) -> None:
    """Raise the Refusal that a new call meets; `ours` are the account's numbers."""
    to, caller = form.get("To"), form.get("From")
    if not to:
        raise Refusal(400, 21201, "No 'To' number is specified")
    if not _E164.fullmatch(to) and not is_sip(to):
        raise Refusal(400, 21211, f"The phone number you are attempting to call, {to}, is not valid.")
    if not caller:
        raise Refusal(400, 21213, "No 'From' number is specified")
    if not is_sip(to) and not _E164.fullmatch(caller):
        raise Refusal(400, 21212, f"The source phone number provided, {caller}, is not valid.")
    if not is_sip(to) and caller not in ours:
        raise Refusal(400, 21210, f"The source phone number provided, {caller}, is not yet verified for your account.")
    _check_what_to_do(form)
    _check_number(form, "Timeout", 1, 600)
    _check_number(form, "TimeLimit", 1, 86400)
    if not re.fullmatch(r"[0-9A-D#*wW]{0,32}", form.get("SendDigits")):
        raise Refusal(400, 21217, "Invalid SendDigits")
    for name in ("StatusCallback", "AsyncAmdStatusCallback"):
        if name in form and not is_url(form.get(name)):
            raise Refusal(400, 21609, f"The {name} URL {form.get(name)} is not a valid URL.")
    if any(event not in EVENTS for event in form.all("StatusCallbackEvent")):
        raise Refusal(400, 21626, "Invalid StatusCallbackEvent")
    if form.get("MachineDetection", "Enable") not in ("Enable", "DetectMessageEnd"):
        raise Refusal(400, 20001, "Invalid MachineDetection")


def check_twiml(twiml: str) -> None:
    """Raise the Refusal that TwiML in a parameter meets."""
    if len(twiml) > _MAX_TWIML:
        raise Refusal(400, 21603, f"Twiml parameter is longer than {_MAX_TWIML} characters")
    try:
        sound = ElementTree.fromstring(twiml).tag == "Response"
    except ElementTree.ParseError:
        sound = False
    if not sound:
        # Twilio finds out when it runs the document, and says so in its debugger only.
        raise Refusal(400, 12100, "Document parse failure")


def check_webhook(form: SentForm) -> None:
    """Raise the Refusal that a number's or a domain's new webhook meets."""
    for name in ("VoiceUrl", "StatusCallback", "VoiceStatusCallbackUrl", "VoiceFallbackUrl"):
        if form.get(name) and not is_url(form.get(name)):
            raise Refusal(400, 21502, f"{name} is not valid: {form.get(name)}")
    for name in ("VoiceMethod", "StatusCallbackMethod", "VoiceStatusCallbackMethod"):
        if form.get(name, "POST") not in ("GET", "POST"):
            raise Refusal(400, 21503, f"{name} is not valid")


def _check_what_to_do(form: SentForm) -> None:
    if form.get("Twiml"):
        check_twiml(form.get("Twiml"))
    elif not form.get("Url") and not form.get("ApplicationSid"):
        raise Refusal(400, 21205, "Url parameter is required.")
    elif form.get("Url") and not is_url(form.get("Url")):
        raise Refusal(400, 21205, f"Url is not a valid URL: {form.get('Url')}")


def _check_number(form: SentForm, name: str, least: int, most: int) -> None:
    if name not in form:
        return
    value = form.get(name)
    if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
        raise Refusal(400, 20001, f"Invalid {name}")
