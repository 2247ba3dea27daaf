"""Asking for tokens: `/webrtc/token`, `/chat/token`, and the mint of the first SDKs (browser §1.1, §1.2, §1.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog
from fastapi import APIRouter, Request

from server.agents.agent import MAX_SLUG, Agent, slugify
from server.agents.registry import AgentRegistry
from server.api.access import Access, keys_shown, network_of, peer_of
from server.api.address import address_of, origin_of_address, origin_sent
from server.api.body import body_of
from server.api.errors import ApiError, JsonAnswer, too_many
from server.origins import Origin, parse_origin
from server.store.base import AgentKey
from server.throttle import Rates
from server.tokens import Metadata, Minted, TokenChannel, Tokens

log = structlog.get_logger(__name__)

MAX_METADATA: Final = 2048
"""Bytes of JSON."""
_MAX_BODY: Final = 16 * 1024
_LEGACY: Final = "/api/sdk/webrtc-token"


class MintRates:
    """How often tokens are made (browser §1.8). Counted are tokens, not refusals."""

    def __init__(self, per_ip: int, per_agent: int, per_org: int) -> None:
        """All a minute; the first two for pages, the last for API keys. 0: no limit."""
        self._ip = Rates(per_ip, min(10, per_ip))
        self._agent = Rates(per_agent, per_agent)
        self._org = Rates(per_org, per_org)

    def of_key(self, org_id: str, now: float) -> None:
        """A program of that organisation wants one. Raises `ApiError` 429."""
        _unless(self._org.take(org_id, now))

    def of_page(self, peer: str, agent: AgentKey, now: float) -> None:
        """A page wants one. Raises `ApiError` 429."""
        _unless(self._ip.take(network_of(peer), now))
        _unless(self._agent.take(f"{agent.org_id} {agent.slug}", now))


def _unless(wait: float) -> None:
    if wait:
        raise too_many("Too many tokens; try again later", wait)


@dataclass(frozen=True, slots=True)
class _Page:
    """A request without a secret key: what it says of its origin, and of which organisation it says it is."""

    origin: Origin | None
    org_id: str | None


class TokenDesk:
    """Decides who gets a token for what."""

    def __init__(self, tokens: Tokens, registry: AgentRegistry, access: Access, rates: MintRates) -> None:
        self.tokens = tokens
        self.access = access
        self._registry = registry
        self._rates = rates

    async def ask(self, channel: TokenChannel, request: Request, address: str) -> Minted:
        """A token as the request's query asks for it. `address` is the gateway's own. Raises `ApiError`."""
        keys = keys_shown(request)
        in_query = request.query_params.getlist("api_key")
        if any(not key.startswith("pk_publishable_") for key in in_query):
            raise ApiError(401, "UNAUTHORIZED", "An API key does not belong in an address")
        keys |= frozenset(in_query)
        page: _Page | None = None
        org_id = self.access.publishable_org(keys)
        if org_id is not None or not keys:
            page = _Page(_origin_for(request, address), org_id)
        else:
            org_id = await self.access.org_of(keys, peer_of(request))
        slug = _slug_asked(request)
        if page is None:
            assert org_id is not None
            return await self.for_key(channel, AgentKey(org_id, slug), _metadata_asked(request))
        return await self._for_page(channel, page, slug, peer_of(request))

    async def for_key(self, channel: TokenChannel, agent: AgentKey, metadata: Metadata) -> Minted:
        """A token for a program that has shown its organisation's key. Raises `ApiError`."""
        if not await self._registry.online(agent):
            raise agent_offline(agent.slug)
        self._rates.of_key(agent.org_id, self._registry.clock.now())
        return await self.tokens.mint(channel, agent, metadata, None)

    async def _for_page(self, channel: TokenChannel, page: _Page, slug: str, peer: str) -> Minted:
        named = [agent for agent in self._registry.named(slug) if agent.online]
        candidates = [agent for agent in named if page.org_id in (None, agent.key.org_id)]
        agent = only_open_to(candidates, page.origin)
        if agent is None:
            if len(candidates) == 1:
                raise ApiError(403, "ORIGIN_NOT_ALLOWED", "This origin may not ask for tokens of this agent")
            raise agent_offline(slug)
        self._rates.of_page(peer, agent.key, self._registry.clock.now())
        return await self.tokens.mint(channel, agent.key, {}, str(page.origin))


def only_open_to(agents: list[Agent], origin: Origin | None) -> Agent | None:
    """The one agent among those of a name that pages of this origin may talk to; several are none."""
    open_ = [agent for agent in agents if agent.allowed_origins.match(origin)]
    return open_[0] if len(open_) == 1 else None


def agent_offline(slug: str) -> ApiError:
    """404, the same whether there is no such agent, it is away, or it is somebody else's."""
    return ApiError(404, "AGENT_OFFLINE", f"Agent '{slug}' is not online")


def token_routes(desk: TokenDesk, public_url: str | None, base_url: Callable[[], str]) -> APIRouter:
    """The routes; `base_url` is our address where neither settings nor request name one."""
    routes = APIRouter()

    def address(request: Request) -> str:
        return address_of(request, public_url, base_url())

    def answer(minted: Minted, request: Request) -> JsonAnswer:
        body = {
            "token": minted.token,
            "server": address(request),
            "expires_in": minted.expires_in,
            "expiresIn": minted.expires_in,
        }
        return JsonAnswer(body, headers={"Cache-Control": "no-store"})

    @routes.get("/webrtc/token")
    async def webrtc(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        return answer(await desk.ask("webrtc", request, address(request)), request)

    @routes.get("/chat/token")
    async def chat(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        return answer(await desk.ask("chat", request, address(request)), request)

    @routes.post(_LEGACY)
    async def legacy(request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        org_id = await desk.access.org(request)
        agent_id = await _agent_id_in_body(request)
        return answer(await desk.for_key("webrtc", AgentKey(org_id, _slug(agent_id)), {}), request)

    return routes


def _origin_for(request: Request, address: str) -> Origin | None:
    """The page's origin. Browsers leave it out where a page asks its own server. Raises `ApiError` 401 without one."""
    sent = origin_sent(request)
    if sent is not None:
        return parse_origin(sent)
    if request.headers.get("sec-fetch-site") == "same-origin":
        return origin_of_address(address)
    raise ApiError(401, "UNAUTHORIZED", "An API key or an allowed origin is required")


def _slug_asked(request: Request) -> str:
    """The agent that the query names. Raises `ApiError` 400."""
    asked = request.query_params.getlist("agent_id")
    if len(asked) != 1:
        raise ApiError(400, "BAD_REQUEST", "agent_id: name one agent")
    scopes = request.query_params.getlist("scope")
    if any(scope != "participate" for scope in scopes):
        raise ApiError(400, "BAD_REQUEST", "scope: only participate is possible here")
    return _slug(asked[0])


def _slug(agent_id: str) -> str:
    slug = slugify(agent_id) if "," not in agent_id and len(agent_id) <= 4 * MAX_SLUG else ""
    if not slug or len(slug) > MAX_SLUG:
        raise ApiError(400, "BAD_REQUEST", "agent_id: name one agent")
    return slug


def _metadata_asked(request: Request) -> Metadata:
    """What the query wants sealed into the token. Raises `ApiError` 400."""
    asked = request.query_params.getlist("metadata")
    if not asked:
        return {}
    text = asked[0].encode("utf-8", "surrogatepass")
    try:
        if len(asked) > 1 or len(text) > MAX_METADATA:
            raise ValueError
        msgspec.json.decode(text)  # all of it: members are kept as they were written, and must be good JSON
        return msgspec.json.decode(text, type=Metadata)
    except (ValueError, RecursionError):
        problem = f"metadata: needs to be one JSON object of at most {MAX_METADATA} bytes"
        raise ApiError(400, "BAD_REQUEST", problem) from None


async def _agent_id_in_body(request: Request) -> str:
    """`agent_id` of a JSON body. Raises `ApiError` 400, 413."""
    body = await body_of(request, _MAX_BODY)
    try:
        return msgspec.json.decode(body, type=_LegacyAsk).agent_id
    except (ValueError, RecursionError):
        raise ApiError(400, "BAD_REQUEST", 'The body needs to be {"agent_id": "…"}') from None


class _LegacyAsk(msgspec.Struct):
    agent_id: str
