"""The websocket to a vendor: how it is opened, what a refusal means, and when trying again makes sense.

Every vendor with a socket opens it here, so that deadlines, keep-alive, refusals and retries are one thing everywhere.
Audio sockets are never compressed: it costs time and gains nothing on audio.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.http11 import Response

from providers.base import AudioFormat, Encoding
from providers.errors import ProviderError, RateLimited, Refused, TimedOut, Unavailable

log = structlog.get_logger(__name__)

OPEN_TIMEOUT = 5.0
"""Seconds for TCP, TLS and the websocket handshake together."""
PING_INTERVAL = 20.0
PING_TIMEOUT = 20.0
CLOSE_TIMEOUT = 1.0
MAX_MESSAGE = 8 * 1024 * 1024
"""Bytes; the largest message any vendor sends is an audio chunk far below this."""

_QUOTED_BODY = 200


@dataclass(frozen=True, slots=True)
class VendorEndpoint:
    """Where a vendor's socket is and in whose name its failures are reported.

    `headers` carry the key (kept out of `repr`). `code` is the wire code of its failures: STT_ERROR or TTS_ERROR.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    vendor: str
    code: str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try and how long to wait in between; delays are seconds and double from `first_delay` on."""

    attempts: int
    first_delay: float
    max_delay: float

    def delay(self, failed: int, jitter: float) -> float:
        """Seconds to wait after `failed` (1..) failures; `jitter` 0..1 spreads callers over the delay's upper half."""
        ceiling = min(self.max_delay, self.first_delay * 2 ** (failed - 1))
        return ceiling * (0.5 + 0.5 * jitter)


RECONNECT = RetryPolicy(attempts=3, first_delay=0.2, max_delay=2.0)
"""The policy of live calls: a caller is waiting, so the tries follow fast unless the vendor names a delay."""


class _Connect(connect):
    """`connect` without redirects: following one would hand the key in our headers to whoever is named there."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


@cache
def _tls() -> ssl.SSLContext:
    """One context for all sockets: building it reads the CA store from disk, which takes milliseconds of event loop."""
    return ssl.create_default_context()


async def connect_vendor(target: VendorEndpoint) -> ClientConnection:
    """Open a vendor's socket, within `OPEN_TIMEOUT`. The caller owns and closes it.

    Raises Refused, RateLimited, Unavailable or TimedOut, in the vendor's name.
    """
    opening = _Connect(
        target.url,
        additional_headers=target.headers,
        compression=None,
        open_timeout=OPEN_TIMEOUT,
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
        close_timeout=CLOSE_TIMEOUT,
        max_size=MAX_MESSAGE,
        ssl=_tls() if target.url.startswith("wss:") else None,
    )
    try:
        return await opening
    except InvalidStatus as refusal:
        raise refusal_error(target, refusal.response) from refusal
    except TimeoutError as late:
        message = f"{target.vendor} did not answer within {OPEN_TIMEOUT:g} s"
        raise TimedOut(message, vendor=target.vendor, code=target.code) from late
    except InvalidURI as wrong:
        raise Refused(f"{target.vendor} has no valid URL", vendor=target.vendor, code=target.code) from wrong
    except (OSError, EOFError, InvalidHandshake) as broken:
        message = f"{target.vendor} cannot be reached ({type(broken).__name__})"
        raise Unavailable(message, vendor=target.vendor, code=target.code) from broken


async def connect_retrying(target: VendorEndpoint, policy: RetryPolicy = RECONNECT) -> ClientConnection:
    """`connect_vendor`, tried again while the failure is retryable and the policy allows.

    A vendor that asks for more patience than `policy.max_delay` has the last word, and so has one that let a whole
    `OPEN_TIMEOUT` pass: nobody on a call can wait for a second one.
    """
    failed = 0
    while True:
        try:
            return await connect_vendor(target)
        except ProviderError as error:
            failed += 1
            wait = policy.delay(failed, random.random())
            if isinstance(error, RateLimited) and error.retry_after is not None:
                wait = max(wait, error.retry_after)
            hopeless = not error.retryable or isinstance(error, TimedOut)
            if hopeless or failed >= policy.attempts or wait > policy.max_delay:
                raise
            log.info("vendor_connect_retry", vendor=target.vendor, failed=failed, wait=round(wait, 3), error=str(error))
        await asyncio.sleep(wait)


class AudioFeed:
    """The audio on its way to a recogniser: what still has to be sent, and the last of what was sent, to send it again.

    Bounded both ways (seconds): more than `backlog` unsent drops the oldest unsent audio, more than `replay` sent is
    forgotten. Positions count bytes of audio sent since the start of the call.
    """

    def __init__(self, audio: AudioFormat, *, backlog: float, replay: float) -> None:
        self._sample = 1 if audio.encoding is Encoding.MULAW else 2
        self._rate = audio.rate
        self._backlog = self.size(backlog)
        self._replay = self.size(replay)
        self._audio = bytearray()
        self._start = 0
        self._next = 0
        self.dropped = 0
        """Bytes lost to the bound so far."""

    def __len__(self) -> int:
        """Bytes still to be sent."""
        return self._start + len(self._audio) - self._next

    @property
    def position(self) -> int:
        """Where the next byte to send is."""
        return self._next

    @property
    def earliest(self) -> int:
        """The oldest position that `rewind` can go back to."""
        return self._start

    def size(self, seconds: float) -> int:
        """Bytes of `seconds` of audio, whole samples."""
        return int(seconds * self._rate) * self._sample

    def append(self, audio: bytes) -> None:
        """Add audio to be sent."""
        self._audio += audio
        excess = len(self) - self._backlog
        if excess > 0:
            sent = self._next - self._start
            del self._audio[sent : sent + excess]
            self.dropped += excess

    def take(self, size: int) -> bytes:
        """The next audio to send, at most `size` bytes."""
        sent = self._next - self._start
        audio = bytes(self._audio[sent : sent + size])
        self._next += len(audio)
        forgotten = sent + len(audio) - self._replay
        if forgotten > 0:
            del self._audio[:forgotten]
            self._start += forgotten
        return audio

    def rewind(self, position: int) -> int:
        """Go back to `position` or as near to it as can be; returns the bytes that will be sent again."""
        back = min(max(position, self._start), self._next)
        replayed = self._next - back
        self._next = back
        return replayed


def refusal_error(target: VendorEndpoint, response: Response) -> ProviderError:
    """What a handshake answered with anything but 101 means."""
    status = response.status_code
    message = f"{target.vendor} refused the connection: HTTP {status}{_quote(status, response.body)}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        retry_after = _seconds(response.headers.get("Retry-After"))
        return RateLimited(message, vendor=target.vendor, code=target.code, retry_after=retry_after)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return Unavailable(message, vendor=target.vendor, code=target.code)
    return Refused(message, vendor=target.vendor, code=target.code)


def _quote(status: int, body: bytes | bytearray | None) -> str:
    """The vendor's own words for a bad option; not for a bad key, where vendors like to repeat the key."""
    if not body or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return ""
    words = " ".join(body.decode(errors="replace").split())
    return f": {words[:_QUOTED_BODY]}"


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` in its seconds form (RFC 9110 §10.2.3); a date is as good as nothing told."""
    if retry_after is None or not retry_after.strip().isdecimal():
        return None
    return float(retry_after)
