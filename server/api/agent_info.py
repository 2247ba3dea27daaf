"""`GET /api/sdk/agent-info/{agent}`: what a widget shows before anybody talks, for anybody to read (browser §5.1)."""

from __future__ import annotations

from typing import TypedDict

from fastapi import APIRouter, Request

from server.agents.agent import Agent, slugify
from server.agents.registry import AgentRegistry
from server.api.access import network_of, peer_of
from server.api.address import origin_sent
from server.api.errors import JsonAnswer, too_many
from server.api.tokens import agent_offline, only_open_to
from server.origins import parse_origin
from server.throttle import Rates
from transports.twilio.numbers import is_e164


class ChannelInfo(TypedDict, total=False):
    """One way to an agent. `numbers` only for phones, `phone` only for WhatsApp."""

    type: str
    numbers: list[str]
    phone: str


def agent_info_routes(registry: AgentRegistry, rates: Rates, *, numbers: bool) -> APIRouter:
    """The route. `numbers` says whether telephone numbers are shown."""
    routes = APIRouter()

    @routes.get("/api/sdk/agent-info/{agent_id}")
    async def info(agent_id: str, request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        if wait := rates.take(network_of(peer_of(request)), registry.clock.now()):
            raise too_many("Too many questions; try again later", wait)
        slug = slugify(agent_id)
        agents = [agent for agent in registry.named(slug) if agent.online]
        sent = origin_sent(request)
        agent = agents[0] if len(agents) == 1 else only_open_to(agents, parse_origin(sent) if sent else None)
        if agent is None:
            raise agent_offline(slug)
        return JsonAnswer({"agent": agent.key.slug, "channels": channels_of(agent, numbers=numbers)})

    return routes


def channels_of(agent: Agent, *, numbers: bool) -> list[ChannelInfo]:
    """The ways to an agent that anybody may know of. Web and chat are always open."""
    channels: list[ChannelInfo] = [{"type": "webrtc"}, {"type": "chat"}]
    if any(channel.type == "mic" for channel in agent.channels.values()):
        channels.append({"type": "mic"})
    if not numbers:
        return channels
    phones = [channel.key for channel in agent.channels.values() if channel.type == "phone" and is_e164(channel.key)]
    if phones:
        channels.append({"type": "phone", "numbers": phones})
    whatsapps = [channel.whatsapp.phone for channel in agent.channels.values() if channel.whatsapp is not None]
    channels.extend({"type": "whatsapp", "phone": phone} for phone in whatsapps if phone)
    return channels
