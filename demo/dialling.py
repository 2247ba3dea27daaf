"""How a carrier places a call with a gateway: the voice webhook, signed, and the TwiML that comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from secrets import token_hex
from urllib.parse import urlsplit
from xml.etree import ElementTree

import httpx2
from twilio.request_validator import RequestValidator  # pyright: ignore[reportMissingTypeStubs]

from transports.twilio.signature import SIGNATURE_HEADER, is_loopback

_WEBHOOK_S = 15.0
"""How long Twilio waits for the answer."""
_PARAMETER_CHARACTERS = 500


class DialFailed(Exception):
    """The gateway's answer is none that a carrier can work with."""


class Outcome(Enum):
    """What the gateway did with the call."""

    CONNECTED = auto()
    REJECTED = auto()
    SAID = auto()
    """A sentence was read out, or nothing at all, and the call hung up."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`detail` is the reason of a rejection or the words that were read out; the rest belongs to a stream."""

    outcome: Outcome
    detail: str = ""
    stream_url: str = ""
    parameters: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Dial:
    """Whom to call, and as whom. `gateway` is its origin, e.g. `http://127.0.0.1:1337`.

    With an `auth_token` all requests are signed, over `public_url` where the world knows the gateway by another name.
    """

    gateway: str
    to: str
    caller: str = "+15550100199"
    auth_token: str | None = None
    public_url: str | None = None
    account_sid: str = "AC" + "0" * 32
    call_sid: str = field(default_factory=lambda: "CA" + token_hex(16))
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further fields of the webhook, such as those of a SIP call."""

    def signature(self, url: str, form: dict[str, str]) -> dict[str, str]:
        """The header that signs a request; empty without a token."""
        if self.auth_token is None:
            return {}
        validator = RequestValidator(self.auth_token)
        return {SIGNATURE_HEADER: validator.compute_signature(url, form)}  # pyright: ignore[reportUnknownMemberType]

    def reachable(self, stream_url: str) -> str:
        """Where to connect for `stream_url`. A gateway on this machine is reached here, by whatever public name."""
        gateway = urlsplit(self.gateway)
        if gateway.hostname != "localhost" and not is_loopback(gateway.hostname or ""):
            return stream_url
        scheme = "wss" if gateway.scheme == "https" else "ws"
        return f"{scheme}://{gateway.netloc}{urlsplit(stream_url).path}"


async def place_call(dial: Dial) -> Answer:
    """Announce the call to the gateway's webhook and read its answer. Raises DialFailed."""
    form = {
        "CallSid": dial.call_sid,
        "AccountSid": dial.account_sid,
        "From": dial.caller,
        "To": dial.to,
        "Caller": dial.caller,
        "Called": dial.to,
        "CallStatus": "ringing",
        "ApiVersion": "2010-04-01",
        "Direction": "inbound",
        **dial.fields,
    }
    headers = dial.signature(f"{dial.public_url or dial.gateway}/twilio/voice", form)
    try:
        async with httpx2.AsyncClient(timeout=_WEBHOOK_S, trust_env=False) as http:
            response = await http.post(f"{dial.gateway}/twilio/voice", data=form, headers=headers)
    except httpx2.HTTPError as error:
        raise DialFailed(f"the gateway cannot be reached: {type(error).__name__}") from error
    if response.status_code != HTTPStatus.OK:
        raise DialFailed(f"the gateway answered {response.status_code}")
    if "xml" not in response.headers.get("content-type", ""):
        raise DialFailed("the gateway's answer is not XML by its content type")
    return read_twiml(response.content)


def read_twiml(document: bytes) -> Answer:
    """Read the verbs that a gateway may answer an inbound call with. Raises DialFailed."""
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise DialFailed(f"the answer is not XML: {error}") from error
    verbs = list(root)
    if root.tag != "Response" or not verbs:
        raise DialFailed("the answer is no TwiML with a verb in it")
    match verbs[0].tag:
        case "Connect":
            return _read_stream(verbs[0])
        case "Reject":
            return Answer(Outcome.REJECTED, verbs[0].get("reason", "rejected"))
        case "Say" | "Hangup":
            return Answer(Outcome.SAID, " ".join(verb.text or "" for verb in verbs if verb.tag == "Say"))
        case other:
            raise DialFailed(f"a verb that no inbound call begins with: {other}")


def _read_stream(connect: ElementTree.Element) -> Answer:
    stream = connect.find("Stream")
    url = "" if stream is None else stream.get("url", "")
    parts = urlsplit(url)
    if stream is None or parts.scheme not in ("ws", "wss") or not parts.netloc:
        raise DialFailed(f"<Connect> without a <Stream> that can be reached: {url!r}")
    if parts.query:
        raise DialFailed("a stream URL must not have a query (Twilio error 31920)")
    parameters = {item.get("name", ""): item.get("value", "") for item in stream.findall("Parameter")}
    if any(len(name) + len(value) > _PARAMETER_CHARACTERS for name, value in parameters.items()):
        raise DialFailed(f"a parameter of more than {_PARAMETER_CHARACTERS} characters")
    return Answer(Outcome.CONNECTED, stream_url=url, parameters=parameters)
