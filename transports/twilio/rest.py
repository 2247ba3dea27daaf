"""What we ask of Twilio's REST API while calls run (API version 2010-04-01).

CarrierError               anything; `code` is Twilio's own number where it gave one
├── CarrierRefused         wrong credentials, wrong request: asking again cannot help
└── CarrierUnavailable     no connection, 5xx, 429, or no answer in time
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from urllib.parse import quote

import httpx2
import msgspec

_DEADLINE_S = 5.0
_ATTEMPTS = 2
_CALL_IS_OVER = {20404, 21220}
"""Twilio's codes for a call that it does not know, or that is not in progress any more."""


class CarrierError(Exception):
    """Twilio did not do what we asked. The text holds no secret."""

    def __init__(self, message: str, *, status: int | None = None, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class CarrierRefused(CarrierError):
    """Twilio said no, and would again."""


class CarrierUnavailable(CarrierError):
    """Twilio could not be reached, had an internal error, or asked for patience."""


class _Problem(msgspec.Struct):
    code: int | None = None
    message: str = ""


class TwilioRest:
    """One account. `base_url` is the origin of the API, e.g. a regional one."""

    def __init__(self, account_sid: str, auth_token: str, base_url: str = "https://api.twilio.com") -> None:
        self._calls = f"/2010-04-01/Accounts/{quote(account_sid, safe='')}/Calls"
        self._http = httpx2.AsyncClient(base_url=base_url, auth=(account_sid, auth_token), timeout=_DEADLINE_S)

    async def hang_up(self, call_sid: str) -> None:
        """End a call in progress. Fine when it is over already. Takes at most 5 s. Raises CarrierError."""
        problem = await self._update(call_sid, {"Status": "completed"})
        if problem is not None and problem.code not in _CALL_IS_OVER and problem.status != HTTPStatus.NOT_FOUND:
            raise problem

    async def redirect(self, call_sid: str, twiml: str) -> None:
        """Let a call go on with other TwiML, which ends its media stream. Takes at most 5 s. Raises CarrierError."""
        problem = await self._update(call_sid, {"Twiml": twiml})
        if problem is not None:
            raise problem

    async def aclose(self) -> None:
        """Give the connections back. Idempotent."""
        await self._http.aclose()

    async def _update(self, call_sid: str, form: dict[str, str]) -> CarrierRefused | None:
        """Change a call; gives Twilio's refusal back because it depends on the change whether that is an error."""
        path = f"{self._calls}/{quote(call_sid, safe='')}.json"
        try:
            async with asyncio.timeout(_DEADLINE_S):
                return await self._post(path, form)
        except TimeoutError:
            raise CarrierUnavailable(f"no answer from Twilio within {_DEADLINE_S:g} s") from None

    async def _post(self, path: str, form: dict[str, str]) -> CarrierRefused | None:
        failure = CarrierUnavailable("not asked")
        for _ in range(_ATTEMPTS):
            try:
                response = await self._http.post(path, data=form)
            except httpx2.HTTPError as error:
                failure = CarrierUnavailable(f"cannot reach Twilio: {type(error).__name__}")
                continue
            if response.is_success:
                return None
            problem = _problem(response.content)
            text = f"Twilio answered {response.status_code}: {problem.message or 'no reason given'}"
            if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                raise CarrierUnavailable(text, status=response.status_code, code=problem.code)
            if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                return CarrierRefused(text, status=response.status_code, code=problem.code)
            failure = CarrierUnavailable(text, status=response.status_code, code=problem.code)
        raise failure


def _problem(body: bytes) -> _Problem:
    try:
        return msgspec.json.decode(body, type=_Problem)
    except (msgspec.MsgspecError, ValueError):
        return _Problem()
