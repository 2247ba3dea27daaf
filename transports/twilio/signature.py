"""Is this request really from Twilio? (Twilio "Webhooks security": HMAC-SHA1 with the account's auth token.)

The URL is the public one exactly as Twilio called it, never one rebuilt from a Host header. Twilio is not consistent
about the default port, nor about the scheme and a trailing slash on websocket handshakes: those variants count as one.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

from twilio.request_validator import RequestValidator  # pyright: ignore[reportMissingTypeStubs]

SIGNATURE_HEADER = "X-Twilio-Signature"

Form = Sequence[tuple[str, str]]
"""Decoded form fields in the order they came; names may repeat, values may be empty."""

_MAX_FIELDS = 300
_DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


class _Fields(dict[str, list[str]]):
    """The form as the validator likes it: all values of a name."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


def parse_form(body: bytes) -> Form:
    """Fields of an urlencoded body, blank ones too (they are signed). Nonsense or over 300 fields: an empty form."""
    try:
        return parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError:
        return ()


def verify_webhook(token: str, url: str, form: Form, header: str | None) -> bool:
    """Whether `header` signs the public `url` (query included) and the form; for a GET the form is empty."""
    return _matches(token, _port_variants(url), form, header)


def verify_stream(token: str, url: str, header: str | None) -> bool:
    """Whether `header` signs the handshake of a media stream whose TwiML said `url` (`wss://…`)."""
    secure = url.replace("ws", "http", 1) if url.startswith("ws") else url
    spellings = [variant for base in (url, secure) for variant in (base.rstrip("/"), base.rstrip("/") + "/")]
    return _matches(token, (variant for base in spellings for variant in _port_variants(base)), (), header)


def is_loopback(host: str) -> bool:
    """Whether a peer's address is this machine itself. Names and nonsense are not."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _matches(token: str, urls: Iterable[str], form: Form, header: str | None) -> bool:
    if not header:
        return False
    fields = _Fields()
    for name, value in form:
        fields.setdefault(name, []).append(value)
    validator = RequestValidator(token)
    given = header.encode("utf-8", "surrogateescape")
    expected = (_signature(validator, url, fields) for url in urls)
    return any(hmac.compare_digest(signature, given) for signature in expected)


def _signature(validator: RequestValidator, url: str, fields: _Fields) -> bytes:
    return validator.compute_signature(url, fields).encode()  # pyright: ignore[reportUnknownMemberType]


def _port_variants(url: str) -> tuple[str, ...]:
    """The URL itself, and the same with the default port added or left out. Any other port stays as it is."""
    parts = urlsplit(url)
    default = _DEFAULT_PORTS.get(parts.scheme)
    if default is None:
        return (url,)
    try:
        port = parts.port
    except ValueError:
        return (url,)
    if port is None:
        return url, parts._replace(netloc=f"{parts.netloc}:{default}").geturl()
    if port == default:
        return url, parts._replace(netloc=parts.netloc.rpartition(":")[0]).geturl()
    return (url,)
