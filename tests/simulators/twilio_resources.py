"""Numbers and SIP domains of a simulated Twilio account, and lists of them in pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from secrets import token_hex
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from tests.simulators.twilio_forms import Refusal, SentForm

_DEFAULT_PAGE = 50
_MAX_PAGE = 1000


@dataclass
class Number:
    """A number of the account; `sid` is made when none is given."""

    account_sid: str
    phone_number: str
    friendly_name: str = ""
    sid: str = ""
    voice_url: str = ""
    voice_method: str = "POST"
    status_callback: str = ""
    voice_application_sid: str | None = None
    trunk_sid: str | None = None

    def __post_init__(self) -> None:
        self.sid = self.sid or "PN" + token_hex(16)
        self.friendly_name = self.friendly_name or self.phone_number

    def change(self, form: SentForm) -> None:
        """What the form says."""
        self.friendly_name = form.get("FriendlyName", self.friendly_name)
        self.voice_url = form.get("VoiceUrl", self.voice_url)
        self.voice_method = form.get("VoiceMethod", self.voice_method)
        self.status_callback = form.get("StatusCallback", self.status_callback)

    def body(self) -> dict[str, object]:
        """As the API shows it."""
        root = f"/2010-04-01/Accounts/{self.account_sid}/IncomingPhoneNumbers/"
        return {
            "sid": self.sid,
            "account_sid": self.account_sid,
            "friendly_name": self.friendly_name,
            "phone_number": self.phone_number,
            "voice_url": self.voice_url,
            "voice_method": self.voice_method,
            "status_callback": self.status_callback,
            "status_callback_method": "POST",
            "voice_application_sid": self.voice_application_sid,
            "trunk_sid": self.trunk_sid,
            "capabilities": {"voice": True, "sms": True, "mms": False},
            "uri": f"{root}{self.sid}.json",
        }


@dataclass
class Domain:
    """A SIP domain of the account."""

    account_sid: str
    domain_name: str
    sid: str = field(default_factory=lambda: "SD" + token_hex(16))
    voice_url: str | None = None
    voice_method: str = "POST"
    voice_status_callback_url: str | None = None

    def change(self, form: SentForm) -> None:
        """What the form says."""
        self.voice_url = form.get("VoiceUrl", self.voice_url or "")
        self.voice_method = form.get("VoiceMethod", self.voice_method)
        self.voice_status_callback_url = form.get("VoiceStatusCallbackUrl", self.voice_status_callback_url or "")

    def body(self) -> dict[str, object]:
        """As the API shows it."""
        return {
            "sid": self.sid,
            "account_sid": self.account_sid,
            "domain_name": self.domain_name,
            "friendly_name": self.domain_name,
            "voice_url": self.voice_url,
            "voice_method": self.voice_method,
            "voice_status_callback_url": self.voice_status_callback_url,
            "voice_status_callback_method": "POST",
            "auth_type": "IP_ACL",
            "sip_registration": False,
            "uri": f"/2010-04-01/Accounts/{self.account_sid}/SIP/Domains/{self.sid}.json",
        }


def page(request: Request, key: str, records: list[dict[str, object]]) -> Response:
    """One page of a list, 50 records unless `PageSize` says otherwise. Raises Refusal."""
    size = _count(request, "PageSize", _DEFAULT_PAGE)
    number = _count(request, "Page", 0)
    if not 1 <= size <= _MAX_PAGE:
        raise Refusal(400, 20006, "Page size must be between 1 and 1000")
    if number > 0 and "PageToken" not in request.query_params:
        raise Refusal(400, 20006, "PageToken is required")
    others = [(name, value) for name, value in request.query_params.items() if not name.startswith("Page")]
    rest = urlencode([("PageSize", str(size)), *others])
    more = len(records) > (number + 1) * size
    after = f"{request.url.path}?{rest}&Page={number + 1}&PageToken=PA{token_hex(4)}" if more else None
    body = {
        key: records[number * size : (number + 1) * size],
        "page": number,
        "page_size": size,
        "start": number * size,
        "end": min(len(records), (number + 1) * size) - 1,
        "uri": f"{request.url.path}?{rest}&Page={number}",
        "first_page_uri": f"{request.url.path}?{rest}&Page=0",
        "next_page_uri": after,
        "previous_page_uri": None,
    }
    return JSONResponse(body)


def _count(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdigit():
        raise Refusal(400, 20001, f"Invalid {name}")
    return int(text)
