"""The HTTP API that SDKs and their command line ask: voices, numbers, balance, connected agents.

Everything but voices needs a secret key and shows what belongs to its organisation, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import HTTPBearer

from providers.errors import ProviderError
from server.agents.agent import slugify
from server.agents.registry import AgentRegistry
from server.api import listings
from server.api.access import Access, keys_shown, network_of, peer_of
from server.api.errors import ApiError, JsonAnswer, error_body, too_many
from server.api.shapes import (
    Account,
    AccountStats,
    AgentList,
    CarrierBalance,
    Displaced,
    PhoneList,
    Problem,
    VoiceList,
)
from server.api.voice_answers import VoiceAnswers
from server.auth import digest_of
from server.carriers import Carriers
from server.organisations.directory import Organisations
from server.store.base import AgentKey
from server.supply import Supply
from server.throttle import Rates
from transports.twilio.records import IncomingNumber
from transports.twilio.rest import CarrierError

log = structlog.get_logger(__name__)

_MAX_TEXT: Final = 64
_BEARER: Final = HTTPBearer(auto_error=False, description="An API key, `pk_…`")
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem},
    401: {"model": Problem},
    429: {"model": Problem},
}


class Pace:
    """How often anybody may ask: counted by address and by key."""

    def __init__(self, per_second: int) -> None:
        """Twice as many at once. 0: no limit."""
        self._addresses = Rates(per_second * 60, per_second * 2)
        self._keys = Rates(per_second * 60, per_second * 2)

    def address(self, request: Request, now: float) -> None:
        """Somebody asks. Raises `ApiError` 429."""
        _unless(self._addresses.take(network_of(peer_of(request)), now))

    def key(self, key: str, now: float) -> None:
        """Somebody with that key asks. Raises `ApiError` 429."""
        _unless(self._keys.take(digest_of(key).hex(), now))


def _unless(wait: float) -> None:
    if wait:
        raise too_many("Too many requests; try again later", wait)


@dataclass(frozen=True, slots=True)
class SdkDesk:
    """What the routes look at."""

    registry: AgentRegistry
    organisations: Organisations
    supply: Supply
    carriers: Carriers
    access: Access
    pace: Pace

    async def org(self, request: Request) -> str:
        """The organisation whose key was shown. Raises `ApiError` 401, 429, 503."""
        now = self.registry.clock.now()
        self.pace.address(request, now)
        org_id = await self.access.org(request)
        self.pace.key(next(iter(keys_shown(request))), now)
        return org_id

    def anybody(self, request: Request) -> str:
        """The organisation of the key, if a good one was shown, else "". Raises `ApiError` 429."""
        self.pace.address(request, self.registry.clock.now())
        return self.access.org_if_shown(request)

    async def numbers(self, org_id: str) -> list[IncomingNumber]:
        """Those of the organisation's carrier account; none when there is no account or it does not answer."""
        carrier = self.carriers.of(org_id)
        if carrier is None:
            return []
        try:
            return await carrier.numbers()
        except CarrierError as error:
            log.warning("numbers_unavailable", org=org_id, error=str(error))
            return []


def sdk_routes(desk: SdkDesk) -> APIRouter:
    """All of them."""
    routes = APIRouter(responses=_REFUSALS)
    routes.include_router(_catalogue(desk))
    routes.include_router(_carrier(desk))
    routes.include_router(_agents(desk))
    routes.include_router(_account(desk))
    return routes


def _catalogue(desk: SdkDesk) -> APIRouter:
    routes = APIRouter(tags=["voices"])
    answers = VoiceAnswers()

    @routes.get("/api/sdk/voices", response_model=VoiceList, responses={502: {"model": Problem}})
    async def voices(  # pyright: ignore[reportUnusedFunction]
        request: Request,
        provider: Annotated[str, Query(max_length=_MAX_TEXT)] = "elevenlabs",
        language: Annotated[str, Query(max_length=_MAX_TEXT)] = "",
    ) -> Response:
        """The voices of a provider whose language codes begin with `language`. No key is needed; with one, the voices
        are those of the organisation's own account at the provider, if it has one."""
        org_id = desk.anybody(request)
        try:
            found = await desk.supply.voices(org_id, provider.strip().lower())
        except ProviderError as error:
            raise ApiError(HTTPStatus.BAD_GATEWAY, "VOICES_UNAVAILABLE", str(error)) from None
        return answers.answer(found, language.strip())

    return routes


def _carrier(desk: SdkDesk) -> APIRouter:
    routes = APIRouter(tags=["phone"], dependencies=[Depends(_BEARER)])

    @routes.get("/api/sdk/phone-numbers", response_model=PhoneList)
    async def phone_numbers(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        """Numbers of the organisation's carrier account, and those its agents are on besides."""
        org_id = await desk.org(request)
        return listings.phones(org_id, await desk.numbers(org_id), desk.registry.numbers).answer()

    @routes.get("/api/sdk/twilio-balance", response_model=CarrierBalance | Problem, responses={502: {"model": Problem}})
    async def balance(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        """What is left on the organisation's carrier account."""
        org_id = await desk.org(request)
        carrier = desk.carriers.of(org_id)
        if carrier is None:
            return JsonAnswer(error_body("NO_CARRIER", "No carrier account is configured"))
        try:
            left = await carrier.balance()
        except CarrierError as error:
            log.warning("balance_unavailable", org=org_id, error=str(error))
            raise ApiError(HTTPStatus.BAD_GATEWAY, "CARRIER_UNAVAILABLE", "The carrier did not tell") from None
        return CarrierBalance(success=True, balance=left.balance, currency=left.currency).answer()

    return routes


def _agents(desk: SdkDesk) -> APIRouter:
    routes = APIRouter(tags=["agents"], dependencies=[Depends(_BEARER)])

    @routes.get("/api/sdk/agents", response_model=AgentList)
    async def agents(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        """The organisation's agents that are connected to this gateway."""
        org_id = await desk.org(request)
        return listings.agents(desk.registry.of_org(org_id)).answer()

    @routes.delete("/api/sdk/agents/{agent}", response_model=Displaced, responses={404: {"model": Problem}})
    async def kick(request: Request, agent: str) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        """Free an agent's name: its program is told, its calls end."""
        org_id = await desk.org(request)
        key = AgentKey(org_id, slugify(agent))
        if not await desk.registry.kick(key):
            elsewhere = await desk.registry.store.holder_of(key)
            told = "is connected to another gateway" if elsewhere else "is not connected"
            raise ApiError(HTTPStatus.NOT_FOUND, "AGENT_NOT_FOUND", f"Agent {key.slug!r} {told}")
        return Displaced(success=True, displaced=key.slug, org_id=org_id).answer()

    return routes


def _account(desk: SdkDesk) -> APIRouter:
    routes = APIRouter(tags=["organisation"], dependencies=[Depends(_BEARER)])

    @routes.get("/api/orgs/me", response_model=Account)
    async def me(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        """The organisation of the key."""
        return listings.account(desk.organisations.of(await desk.org(request))).answer()

    @routes.get("/api/orgs/me/stats", response_model=AccountStats)
    async def stats(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        """Of a host's services, none are used here."""
        await desk.org(request)
        return AccountStats(managed_phones=0).answer()

    return routes
