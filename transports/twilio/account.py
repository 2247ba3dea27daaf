"""One Twilio account over HTTP: who asks, how long for, how often, and what a failure is called.

CarrierError               anything; `code` is Twilio's own number where it gave one
├── CarrierRefused         wrong credentials, wrong request: asking again cannot help
└── CarrierUnavailable     no connection, 5xx, 429, no answer in time, or one that cannot be read

One rule for retries: a request that may be done twice without harm is asked once more after a lost connection or a 5xx.
One that may not (a new call would ring twice) is asked again only when it cannot have been carried out: no connection
was made, or Twilio answered 429 and named a wait that fits into the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote, urlencode

import httpx2
import msgspec

from providers.vendor_http import answer_to

DEADLINE_S = 5.0
"""For a request with all its attempts."""
PATIENCE_S = 2.0
"""The longest `Retry-After` that is waited for."""
_ATTEMPTS = 2
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}

Form = Sequence[tuple[str, str]]
"""Fields in order; a name may repeat."""

_T = TypeVar("_T")


class CarrierError(Exception):
    """Twilio did not do what we asked. The text holds no secret; `retry_after` is in seconds, where Twilio said."""

    def __init__(
        self, message: str, *, status: int | None = None, code: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class CarrierRefused(CarrierError):
    """Twilio said no, and would again."""


class CarrierUnavailable(CarrierError):
    """Twilio could not be reached, had an internal error, or asked for patience."""


class _Problem(msgspec.Struct):
    code: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: `path` is below the account. Without a form it is a GET. `twice`: may it be carried out twice?"""

    path: str
    form: Form | None = None
    query: Form = ()
    twice: bool = True


class Account:
    """`base_url` is the origin of the API, e.g. a regional one."""

    def __init__(self, account_sid: str, auth_token: str, base_url: str) -> None:
        self.root = f"/2010-04-01/Accounts/{quote(account_sid, safe='')}/"
        self._http = httpx2.AsyncClient(base_url=base_url, auth=(account_sid, auth_token), timeout=DEADLINE_S)

    async def ask(self, what: Ask, answer: type[_T]) -> _T:
        """Ask and read the answer. Takes at most 5 s. Raises CarrierError."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                body = await self._asked(what)
        except TimeoutError:
            raise CarrierUnavailable(f"no answer from Twilio within {DEADLINE_S:g} s") from None
        try:
            return msgspec.json.decode(body, type=answer)
        except (ValueError, RecursionError):
            raise CarrierUnavailable(f"Twilio's answer about {what.path} cannot be read") from None

    async def aclose(self) -> None:
        """Give the connections back. Idempotent."""
        await self._http.aclose()

    async def _asked(self, what: Ask) -> bytes:
        failure = CarrierUnavailable("not asked")
        for attempt in range(_ATTEMPTS):
            try:
                response, body = await self._send(what)
            except httpx2.HTTPError as error:
                failure = CarrierUnavailable(f"cannot reach Twilio: {type(error).__name__}")
                if what.twice or isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
                    continue
                raise failure from error
            if response.is_success:
                return body
            failure = _failure(response, body)
            if isinstance(failure, CarrierRefused):
                raise failure
            if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                if failure.retry_after is None or failure.retry_after > PATIENCE_S or attempt + 1 == _ATTEMPTS:
                    raise failure
                await asyncio.sleep(failure.retry_after)
            elif not what.twice:
                raise failure
        raise failure

    async def _send(self, what: Ask) -> tuple[httpx2.Response, bytes]:
        url = self.root + what.path
        if what.form is None:
            request = self._http.build_request("GET", url, params=list(what.query))
        else:
            request = self._http.build_request("POST", url, content=urlencode(what.form), headers=_FORM)
        return await answer_to(self._http, request)


def _failure(response: httpx2.Response, body: bytes) -> CarrierRefused | CarrierUnavailable:
    status = response.status_code
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except (ValueError, RecursionError):
        problem = _Problem()
    text = f"Twilio answered {status}: {problem.message or 'no reason given'}"
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        wait = _seconds(response.headers.get("retry-after"))
        return CarrierUnavailable(text, status=status, code=problem.code, retry_after=wait)
    return CarrierRefused(text, status=status, code=problem.code)


def _seconds(header: str | None) -> float | None:
    """`Retry-After` as a number of seconds; its form with a date is not used by Twilio."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
