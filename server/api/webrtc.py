"""A page's way to a voice session: `GET /webrtc/ice-servers`, `POST /webrtc/offer` (docs/browser.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
from fastapi import APIRouter, Request

from server.api.access import network_of, peer_of
from server.api.address import origin_sent
from server.api.body import body_of, within
from server.api.errors import ApiError, JsonAnswer, too_many
from server.browser import Answered, Visit
from server.ice import IceServers
from server.throttle import Rates
from server.tokens import Tokens
from transports.webrtc.offer import OfferError, read_offer

MAX_BODY: Final = 256 * 1024
MAX_SDP: Final = 64 * 1024
MAX_CONFIG: Final = 8 * 1024
MAX_METADATA: Final = 2048

Object = dict[str, msgspec.Raw]


class _Ask(msgspec.Struct, frozen=True):
    """The body of an offer. What else is in it does not matter."""

    sdp: str
    token: str
    type: str = "offer"
    config: Object | None = None
    metadata: Object | None = None
    agent_id: str | None = None
    agent: str | None = None


_asks: Final = msgspec.json.Decoder(_Ask)


@dataclass(frozen=True, slots=True)
class OfferRates:
    """How often one address may ask, a minute. 0: no limit."""

    offers: Rates
    ice_servers: Rates


class Sessions(Protocol):
    """Whoever makes calls of offers."""

    async def answer(self, visit: Visit) -> Answered:
        """Raises ApiError."""
        ...


def webrtc_routes(tokens: Tokens, sessions: Sessions, ice: IceServers, rates: OfferRates) -> APIRouter:
    """The two routes."""
    routes = APIRouter()
    clock = ice.clock

    @routes.get("/webrtc/ice-servers")
    async def ice_servers(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        _slow_down(rates.ice_servers, request, clock.now())
        offered: object = msgspec.to_builtins(ice.offered())
        headers = {"Cache-Control": "no-store"} if ice.secret else {}
        return JsonAnswer({"iceServers": offered, "ice_servers": offered}, headers=headers)

    @routes.post("/webrtc/offer")
    async def offer(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        _slow_down(rates.offers, request, clock.now())
        ask = await _read(request)
        try:
            wanted = read_offer(ask.sdp)
        except OfferError as error:
            raise _bad(str(error)) from None
        named = ask.agent_id if ask.agent_id is not None else ask.agent
        grant = await tokens.consume("webrtc", ask.token, origin_sent(request), named)
        # What the token's maker sealed in wins over what the page says of itself.
        metadata = {**(ask.metadata or {}), **grant.metadata}
        answered = await sessions.answer(Visit(grant.agent, metadata, ask.config or {}, wanted))
        body = {
            "sdp": answered.sdp,
            "type": "answer",
            "pc_id": "pc_" + answered.session_id.removeprefix("wrt_"),
            "session_id": answered.session_id,
            "call_id": answered.session_id,
        }
        return JsonAnswer(body, headers={"Cache-Control": "no-store"})

    return routes


def _slow_down(rates: Rates, request: Request, now: float) -> None:
    """Raises ApiError 429."""
    wait = rates.take(network_of(peer_of(request)), now)
    if wait:
        raise too_many("Too many requests; try again later", wait)


async def _read(request: Request) -> _Ask:
    """The body of an offer. Raises ApiError 400, 413."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _bad("The body needs to be application/json")
    body = await body_of(request, MAX_BODY)
    try:
        # As text: metadata goes on to the agent as it is, and bytes that are none would end the agent's connection.
        ask = _asks.decode(body.decode())
    except msgspec.ValidationError as error:
        # Names the field and what it should be, not what was in it.
        raise _bad(f"The offer is not as it should be: {error}") from None
    except (ValueError, RecursionError):
        raise _bad("The body is not JSON") from None
    if ask.type != "offer":
        raise _bad('type: needs to be "offer"')
    within("sdp", len(ask.sdp.encode("utf-8", "surrogatepass")), MAX_SDP)
    within("config", _size(ask.config), MAX_CONFIG)
    within("metadata", _size(ask.metadata), MAX_METADATA)
    return ask


def _size(value: Object | None) -> int:
    return 0 if value is None else sum(len(key) + len(bytes(item)) + 6 for key, item in value.items())


def _bad(detail: str) -> ApiError:
    return ApiError(400, "BAD_REQUEST", detail)
