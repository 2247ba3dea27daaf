"""Who may see the console: whoever signs in with an API key, for a while; and on a machine of one's own, anybody there.

Pages of other sites must not be able to act in the name of somebody who is signed in, nor reach a gateway that is open
on this machine: so cookies are `SameSite=Strict`, and every request has to come from a page of this very host.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from pipelines.clock import Clock
from server.api.address import origin_sent
from server.auth import Keys, digest_of
from server.origins import parse_origin
from transports.twilio.signature import is_loopback

COOKIE: Final = "voice_gateway_console"
COOKIE_PATH: Final = "/console"
"""Nothing else of the gateway is shown the cookie."""
KEPT_SECONDS: Final = 12 * 3600.0
_MAX_SIGNED_IN: Final = 1000
_PROXIES_SAY: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(slots=True)
class _Visit:
    org_id: str
    key: bytes
    """Its digest. Asked about each time: a revoked key ends its visits."""
    until: float


class Visitors:
    """Everybody who is signed in to the console."""

    def __init__(self, keys: Keys, clock: Clock, open_org: str | None) -> None:
        """`open_org` is what anybody on this machine sees without signing in; None: nobody does."""
        self._keys = keys
        self._clock = clock
        self._open_org = open_org
        self._visits: dict[str, _Visit] = {}

    def sign_in(self, key: str, org_id: str) -> str:
        """A cookie for a key that has just been found good."""
        now = self._clock.now()
        self._visits = {name: visit for name, visit in self._visits.items() if visit.until > now}
        while len(self._visits) >= _MAX_SIGNED_IN:
            del self._visits[next(iter(self._visits))]
        cookie = secrets.token_urlsafe(32)
        self._visits[_digest(cookie)] = _Visit(org_id, digest_of(key), now + KEPT_SECONDS)
        return cookie

    def sign_out(self, connection: HTTPConnection) -> None:
        """Forget the visit that the request's cookie names."""
        self._visits.pop(_digest(connection.cookies.get(COOKIE, "")), None)

    def org_of(self, connection: HTTPConnection) -> str | None:
        """Whose calls this visitor may see; None for nobody's."""
        if not from_own_page(connection):
            return None
        visit = self._visits.get(_digest(connection.cookies.get(COOKIE, "")))
        if visit is not None and visit.until > self._clock.now() and self._keys.owner(visit.key) == visit.org_id:
            return visit.org_id
        return self._open_org if self.is_open_to(connection) else None

    def is_open_to(self, connection: HTTPConnection) -> bool:
        """Whether that is a person at this machine who needs no key: not one behind a proxy or a tunnel on it."""
        if self._open_org is None or not from_own_page(connection):
            return False
        peer = connection.client.host if connection.client is not None else ""
        forwarded = any(name in connection.headers for name in _PROXIES_SAY)
        # Browsers speak HTTP/1.1 at least; a proxy that was told nothing at all sends no header, but may speak 1.0.
        direct = not forwarded and connection.scope.get("http_version") != "1.0"
        return direct and is_loopback(peer) and _host_of(connection) in _LOCAL_NAMES


def from_own_page(connection: HTTPConnection) -> bool:
    """Whether a page of this host made the request, as far as its browser says anything about that."""
    origin = origin_sent(connection)
    if origin is not None:
        sent = parse_origin(origin)
        return sent is not None and sent == parse_origin(f"{sent.scheme}://{connection.headers.get('host', '')}")
    return connection.headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def _host_of(connection: HTTPConnection) -> str:
    try:
        return urlsplit(f"//{connection.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()
