"""Reading the body of a request, no more of it than is allowed."""

from __future__ import annotations

from fastapi import Request

from server.api.errors import ApiError


async def body_of(request: Request, limit: int) -> bytes:
    """The whole body, at most `limit` bytes whatever length was announced. Raises `ApiError` 413."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal():
        within("The body", int(announced), limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        within("The body", len(body), limit)
    return bytes(body)


def within(what: str, size: int, limit: int) -> None:
    """Raises `ApiError` 413 for more than `limit` bytes."""
    if size > limit:
        # The rest of it is not read, so the connection can carry no other request.
        raise ApiError(413, "TOO_LARGE", f"{what}: at most {limit} bytes", {"Connection": "close"})
