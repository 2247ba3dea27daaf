"""Reading a vendor's catalogue over HTTP: pages, deadlines, and what a failure is called."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

import httpx2
import msgspec

from providers.errors import Garbled, RateLimited, Refused, TimedOut, Unavailable
from providers.vendor_http import answer_to

CODE = "VOICES_UNAVAILABLE"
MAX_PAGES = 100
"""Of 100 voices each; what is further back nobody will scroll to."""
_REQUEST_S = 5.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CatalogueDoor:
    """Where a vendor's API is, and the headers that open it."""

    vendor: str
    base_url: str
    headers: Mapping[str, str] = field(repr=False)

    def client(self) -> httpx2.AsyncClient:
        """For the pages of one reading."""
        return httpx2.AsyncClient(base_url=self.base_url, headers=dict(self.headers), timeout=_REQUEST_S)

    async def page(self, http: httpx2.AsyncClient, path: str, query: Sequence[tuple[str, str]], answer: type[_T]) -> _T:
        """One page, at most some 5 s. Raises ProviderError."""
        vendor = self.vendor
        try:
            # The client's own limit counts anew with every byte.
            async with asyncio.timeout(_REQUEST_S):
                response, body = await answer_to(http, http.build_request("GET", path, params=tuple(query)))
        except (httpx2.TimeoutException, TimeoutError):
            raise TimedOut(f"{vendor} did not answer", vendor=vendor, code=CODE) from None
        except httpx2.HTTPError as error:
            text = f"{vendor} cannot be reached: {type(error).__name__}"
            raise Unavailable(text, vendor=vendor, code=CODE) from None
        status = response.status_code
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise RateLimited(f"{vendor} asks for patience", vendor=vendor, code=CODE)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unavailable(f"{vendor} answered {status}", vendor=vendor, code=CODE)
        if not response.is_success:
            raise Refused(f"{vendor} answered {status}", vendor=vendor, code=CODE)
        try:
            return msgspec.json.decode(body, type=answer)
        except (ValueError, RecursionError):
            raise Garbled(f"{vendor}'s list of voices cannot be read", vendor=vendor, code=CODE) from None
