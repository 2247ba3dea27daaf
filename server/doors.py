"""What a gateway is asked over HTTP: each door with the parts behind it."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from server.api.agent_info import agent_info_routes
from server.api.carrier import CarrierDoor, carrier_routes
from server.api.chat import ChatDoor, chat_routes
from server.api.console import ConsoleParts, console_routes
from server.api.health import health_routes
from server.api.live import live_routes
from server.api.sdk import Pace, SdkDesk, sdk_routes
from server.api.tokens import token_routes
from server.api.webrtc import OfferRates, webrtc_routes
from server.console.state import Pulse, agents_of, open_organisation, ringing_of
from server.console.visitors import Visitors
from server.gateway import Gateway
from server.ice import IceServers, read_urls
from server.throttle import Rates


def open_doors(app: FastAPI, gateway: Gateway) -> None:
    """Everything that is asked over HTTP, but `/client`."""
    app.include_router(health_routes(gateway))
    app.include_router(chat_routes(ChatDoor(gateway.chats, gateway.tokens, gateway.clock)))
    carrier = carrier_routes(_carrier_door(gateway), gateway.phone, gateway.dialling)
    app.include_router(carrier, include_in_schema=False)
    app.include_router(_token_doors(gateway))
    app.include_router(_sdk_doors(gateway))
    if gateway.settings.console:
        app.include_router(console_routes(_console_parts(gateway)), include_in_schema=False)
    app.include_router(live_routes(gateway.listening, gateway.access), include_in_schema=False)
    app.include_router(_webrtc_doors(gateway), include_in_schema=False)


def _carrier_door(gateway: Gateway) -> CarrierDoor:
    """Who may call the carrier's webhooks."""
    return CarrierDoor(gateway.settings.public_url, gateway.carrier_token, gateway.settings.twilio_validate_signature)


def _token_doors(gateway: Gateway) -> APIRouter:
    """What pages and programs ask before a session."""
    settings = gateway.settings
    routes = token_routes(gateway.token_desk, settings.public_url, lambda: gateway.base_url)
    asked = Rates(settings.agent_info_per_ip, settings.agent_info_per_ip)
    routes.include_router(agent_info_routes(gateway.registry, asked, numbers=settings.agent_info_numbers))
    return routes


def _sdk_doors(gateway: Gateway) -> APIRouter:
    """What SDKs and their command line ask."""
    pace = Pace(gateway.settings.api_requests_per_second)
    parts = (gateway.registry, gateway.organisations, gateway.supply, gateway.carriers, gateway.access)
    return sdk_routes(SdkDesk(*parts, pace))


def _webrtc_doors(gateway: Gateway) -> APIRouter:
    """Where pages begin a voice session."""
    settings = gateway.settings
    secret = "" if settings.turn_secret is None else settings.turn_secret.get_secret_value()
    stun, turn = read_urls(settings.stun_urls, "stun"), read_urls(settings.turn_urls, "turn")
    offers, asked = settings.webrtc_offers_per_ip, settings.webrtc_ice_servers_per_ip
    rates = OfferRates(Rates(offers, offers), Rates(asked, asked))
    ice = IceServers(gateway.clock, stun, turn, secret)
    return webrtc_routes(gateway.tokens, gateway.browsers, ice, rates)


def _console_parts(gateway: Gateway) -> ConsoleParts:
    """What the console shows."""
    pulse = Pulse(gateway.settings, gateway.clock)
    open_to = open_organisation(gateway.settings)
    return ConsoleParts(
        records=gateway.records,
        visitors=Visitors(gateway.organisations.keys, gateway.clock, open_to),
        access=gateway.access,
        clock=gateway.clock,
        agents=lambda org_id: agents_of(gateway.registry, gateway.supply, org_id),
        ringing=lambda org_id: ringing_of(gateway.registry, org_id),
        health=lambda org_id: pulse.read(gateway.calls, gateway.chats, org_id, len(gateway.agents)),
        live=gateway.registry.calls,
        secure=gateway.base_url.startswith("https:"),
        key_kept="" if open_to is None else str(gateway.settings.data_dir / "api_key"),
        mint=lambda channel, agent: gateway.token_desk.for_key(channel, agent, {}),
    )
