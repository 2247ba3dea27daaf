"""What a check finds, in words for whoever runs the gateway, and what checks share while they look."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

import httpx2

from pipelines.clock import Clock
from server.organisations.directory import Organisations
from server.settings import Settings

DEADLINE: Final = 5.0
"""Seconds for one request."""


class Level(Enum):
    """How bad it is. Only `FAILED` makes the whole check fail."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact. Texts hold no secret."""

    what: str
    level: Level
    text: str
    advice: str = ""


def ok(what: str, text: str) -> Finding:
    """As it should be."""
    return Finding(what, Level.OK, text)


def note(what: str, text: str, advice: str = "") -> Finding:
    """Worth knowing."""
    return Finding(what, Level.NOTE, text, advice)


def warning(what: str, text: str, advice: str) -> Finding:
    """Calls work, but something is probably not meant like this."""
    return Finding(what, Level.WARNING, text, advice)


def failed(what: str, text: str, advice: str) -> Finding:
    """Calls will not work."""
    return Finding(what, Level.FAILED, text, advice)


@dataclass(slots=True)
class Visit:
    """One run of all checks."""

    settings: Settings
    organisations: Organisations
    http: httpx2.AsyncClient
    clock: Clock
    running: bool = False
    """Our own gateway answers on its port."""
    skews: list[float] = field(default_factory=list[float])
    """By how many seconds our clock is ahead of others', as they told in passing."""

    async def get(self, url: str, headers: dict[str, str] | None = None) -> httpx2.Response:
        """Ask, and look at the other side's clock. Raises httpx2.HTTPError."""
        response = await self.http.get(url, headers=headers)
        self.saw_date(response.headers.get("date"))
        return response

    def saw_date(self, date: str | None) -> None:
        """A `Date` header; it tells whole seconds only."""
        if not date:
            return
        try:
            self.skews.append(self.clock.wall() - parsedate_to_datetime(date).timestamp() - 0.5)
        except ValueError:
            return


def why(error: httpx2.HTTPError) -> str:
    """What went wrong on the way, in a word."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not valid"
    if "Name or service not known" in text or "getaddrinfo" in text or "name resolution" in text:
        return "its name cannot be resolved"
    if isinstance(error, httpx2.TimeoutException):
        return f"no answer within {DEADLINE:g} s"
    if isinstance(error, httpx2.ConnectError):
        return "no connection"
    return type(error).__name__
