"""Answers of vendors over HTTP, no more of them than is worth reading."""

from __future__ import annotations

from typing import Final

import httpx2

MAX_BYTES: Final = 16 * 1024 * 1024
"""Of one answer. The longest that vendors give, a page of a thousand entries, has a tenth of that."""


class AnswerTooLong(httpx2.HTTPError):
    """More than MAX_BYTES; the rest was not read."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_BYTES >> 20} MB")


async def answer_to(http: httpx2.AsyncClient, request: httpx2.Request) -> tuple[httpx2.Response, bytes]:
    """Send it: the answer and its body. Raises httpx2.HTTPError. The caller has a deadline, this has none."""
    response = await http.send(request, stream=True)
    try:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_BYTES:
                raise AnswerTooLong
        return response, bytes(body)
    finally:
        await response.aclose()
