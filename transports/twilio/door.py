"""Who may open a media socket at all."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import structlog
from picows import WSListener, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from transports.twilio.line import Admit, LineLimits
from transports.twilio.signature import SIGNATURE_HEADER, is_loopback, verify_stream
from transports.twilio.stream import TwilioStream

log = structlog.get_logger(__name__)


class StreamDoor:
    """Answers handshakes on the media path: a new `TwilioStream` for the carrier, 403 for anyone else.

    `stream_url` is the URL our TwiML names. A handshake does not tell which account it is for: any account's token may
    have signed it. Without tokens there is nothing to verify, so only this machine may come in, and not through a proxy
    on it. With `validate` off, whatever stands before us has verified: the one-time secret alone tells
    who may talk.
    """

    def __init__(
        self,
        admit: Admit,
        stream_url: str,
        auth_tokens: Sequence[str],
        limits: LineLimits | None = None,
        *,
        validate: bool = True,
    ) -> None:
        self._admit = admit
        self._stream_url = stream_url
        self._auth_tokens = tuple(auth_tokens)
        self._limits = limits
        self._validate = validate

    def __call__(self, request: WSUpgradeRequest, peer: str) -> WSListener | WSUpgradeResponseWithListener:
        """Answer one handshake; `peer` is the other side's address."""
        if self._may_enter(request, peer):
            return TwilioStream(self._admit, self._limits)
        log.warning("twilio_stream_refused", peer=peer, signed=SIGNATURE_HEADER in request.headers)
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(HTTPStatus.FORBIDDEN), None)

    def _may_enter(self, request: WSUpgradeRequest, peer: str) -> bool:
        if not self._validate:
            return True
        if not self._auth_tokens:
            return is_loopback(peer) and "X-Forwarded-For" not in request.headers
        header = request.headers.get(SIGNATURE_HEADER)
        return any(verify_stream(token, self._stream_url, header) for token in self._auth_tokens)
