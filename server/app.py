"""Composition: the one place where all rooms meet. `Gateway` holds the parts, `create_server` is its face."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, WebSocket
from picows import WSListener, WSUpgradeRequest, WSUpgradeResponseWithListener

from pipelines.audio.tones import hold_music as built_in_music
from pipelines.audio.wav import read_wav
from pipelines.clock import LoopClock
from pipelines.medium import MediumSink
from providers.base import AudioFormat
from server.agents.agent import RegistryTimes
from server.agents.configuration import ConfigRules
from server.agents.dispatch import AgentGateway
from server.agents.endpoint import ObservedWebSocket, serve_agent
from server.agents.link import MAX_FRAME
from server.agents.registry import AgentRegistry
from server.api.access import Access
from server.api.address import BehindProxies
from server.api.agent_info import agent_info_routes
from server.api.carrier import ANSWERED_PATH, FORWARD_PATH, STATUS_PATH, VOICE_PATH, CarrierDoor, carrier_routes
from server.api.chat import ChatDoor, chat_routes
from server.api.console import ConsoleParts, console_routes
from server.api.cors import Cors
from server.api.errors import answer_errors
from server.api.health import health_routes
from server.api.live import live_routes
from server.api.openapi import describe_truly
from server.api.sdk import Pace, SdkDesk, sdk_routes
from server.api.tokens import MintRates, TokenDesk, token_routes
from server.api.webrtc import OfferRates, webrtc_routes
from server.auth import Keys
from server.browser import BrowserCalls, BrowserRules
from server.calls import CallRules, Calls
from server.carriers import Carriers
from server.chats import Chats
from server.console.records import Records
from server.console.state import Pulse, agents_of, open_organisation, ringing_of
from server.console.visitors import Visitors
from server.demo_agent import DemoAgent
from server.dialling import Dialling, DialRules
from server.engines import CallEngines, voice_source
from server.ice import IceServers, read_ports, read_urls
from server.live import LiveListening
from server.logs import log_no_requests
from server.metrics import Metrics
from server.number_setup import NumberRules, NumberSetup
from server.organisations.sources import OrganisationSources
from server.phone import Phone, PhoneRules
from server.settings import Settings
from server.starting import check_store, hold_music, open_store
from server.supply import Supply
from server.switchboard import STREAM_PATH, switchboard_protocol
from server.throttle import Rates
from server.tokens import Tokens
from server.voices import Voices
from transports.twilio.door import StreamDoor
from transports.twilio.line import StreamStart
from transports.twilio.records import VoiceWebhook
from transports.twilio.signature import SIGNATURE_HEADER, is_loopback
from transports.webrtc.peer import Peer
from transports.webrtc.tuning import Network

log = structlog.get_logger(__name__)

STOP_SECONDS = 5.0


class Gateway:
    """Everything that one process serves. Make it inside the event loop; `run` owns all tasks."""

    def __init__(
        self, settings: Settings, sources: OrganisationSources, engines: CallEngines, hold_music: bytes = b""
    ) -> None:
        """`hold_music` is a WAV file; empty means the built-in one."""
        self.settings = settings
        self.engines = engines
        self._sources = sources
        self.organisations = sources.organisations
        self.metrics = Metrics()
        self.clock = LoopClock()
        self.store = open_store(settings, self.clock)
        self.voices = Voices(functools.partial(voice_source, settings), self.clock)
        self.supply = Supply(settings, self.organisations, engines, self.voices)
        times = RegistryTimes(grace=settings.agent_grace_seconds)
        self.registry = AgentRegistry(self.store, self.clock, ConfigRules(self.supply.resolve), times)
        self.agents = AgentGateway(self.organisations, self.registry, self.clock)
        self.access = Access(self.organisations.keys, self.clock)
        self.tokens = Tokens(self.store, self.clock, settings.unused_tokens_per_agent)
        self.base_url = settings.public_url or f"http://127.0.0.1:{settings.port}"
        self.carriers = Carriers(self.organisations, settings.twilio_base_url)

        @functools.cache
        def music(line: AudioFormat) -> bytes:
            return read_wav(hold_music, line) if hold_music else built_in_music(line)

        limit = settings.max_concurrent_calls
        rules = CallRules(limit, settings.max_loop_lag_ms / 1000, music, self._calls_of)
        self.calls = Calls(self.registry, self.supply, rules, self.metrics)
        self.chats = Chats(self.registry, self.supply, self.metrics, settings.max_concurrent_chats)
        self.agents.chats = self.chats
        self.listening = LiveListening(self.calls.find, self.organisations.keys.org_of)
        self.organisations.keys.on_change(self.listening.recheck)
        self.phone = Phone(self.calls, self._phone_rules())
        self.dialling = Dialling(self.calls, self._dial_rules(), self.metrics.ended)
        self.agents.dials = self.dialling
        self.browsers = BrowserCalls(self.calls, self._browser_rules())
        self.number_setup = NumberSetup(self.registry, self._number_rules())
        self.agents.reach.numbers = self.number_setup
        self.metrics.gauge("gateway_agent_connections", "Agent sockets open", lambda: len(self.agents))
        self.metrics.gauge("gateway_store_reachable", "1 while the store answers", lambda: float(self.store.reachable))
        self.metrics.gauge(
            "gateway_loop_lag_seconds", "Lateness of the pacing tick, averaged over a second", lambda: self.calls.lag
        )
        rates = MintRates(settings.page_tokens_per_ip, settings.page_tokens_per_agent, settings.key_tokens_per_org)
        self._token_desk = TokenDesk(self.tokens, self.registry, self.access, rates)
        self._records = Records(settings.console_recent_calls)
        if settings.console:
            self.calls.observers.append(self._records.observe)
            self.chats.observers.append(self._records.observe_chat)
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._serving = False

    @property
    def ready(self) -> bool:
        """May calls come?"""
        return self._serving and self.store.reachable

    @property
    def stream_url(self) -> str:
        """Where the carrier opens media streams."""
        return "ws" + self.base_url.removeprefix("http") + STREAM_PATH

    def accept_stream(self, request: WSUpgradeRequest, peer: str) -> WSListener | WSUpgradeResponseWithListener | None:
        """A handshake on the media path."""
        tokens, validate = self._carrier_tokens(), self.settings.twilio_validate_signature
        if validate and not tokens and self.settings.public_url is not None:
            return None
        if self.organisations.carrier_of_account("") is None and self.settings.public_url is None:
            # The webhook took what is not signed from this machine; its stream comes in the same way.
            tokens = tokens if SIGNATURE_HEADER in request.headers else []
        return StreamDoor(self._admit, self.stream_url, tokens, validate=validate)(request, peer)

    def carrier_door(self) -> CarrierDoor:
        """Who may call the carrier's webhooks."""
        return CarrierDoor(self.settings.public_url, self._carrier_token, self.settings.twilio_validate_signature)

    def token_routes(self) -> APIRouter:
        """What pages and programs ask before a session."""
        settings = self.settings
        routes = token_routes(self._token_desk, settings.public_url, lambda: self.base_url)
        asked = Rates(settings.agent_info_per_ip, settings.agent_info_per_ip)
        routes.include_router(agent_info_routes(self.registry, asked, numbers=settings.agent_info_numbers))
        return routes

    def sdk_routes(self) -> APIRouter:
        """What SDKs and their command line ask."""
        pace = Pace(self.settings.api_requests_per_second)
        parts = (self.registry, self.organisations, self.supply, self.carriers, self.access)
        return sdk_routes(SdkDesk(*parts, pace))

    def webrtc_routes(self) -> APIRouter:
        """Where pages begin a voice session."""
        settings = self.settings
        secret = "" if settings.turn_secret is None else settings.turn_secret.get_secret_value()
        stun, turn = read_urls(settings.stun_urls, "stun"), read_urls(settings.turn_urls, "turn")
        offers, asked = settings.webrtc_offers_per_ip, settings.webrtc_ice_servers_per_ip
        rates = OfferRates(Rates(offers, offers), Rates(asked, asked))
        ice = IceServers(self.clock, stun, turn, secret)
        return webrtc_routes(self.tokens, self.browsers, ice, rates)

    def listens_on(self, port: int) -> None:
        """The port that was really taken; without `PUBLIC_URL` it is part of our address."""
        if self.settings.public_url is None:
            self.base_url = f"http://127.0.0.1:{port}"

    def exposition(self) -> bytes:
        """Metrics in Prometheus' text form."""
        return self.metrics.text()

    def console_parts(self) -> ConsoleParts:
        """What the console shows."""
        pulse = Pulse(self.settings, self.clock)
        open_to = open_organisation(self.settings)
        return ConsoleParts(
            records=self._records,
            visitors=Visitors(self.organisations.keys, self.clock, open_to),
            access=self.access,
            clock=self.clock,
            agents=lambda org_id: agents_of(self.registry, self.supply, org_id),
            ringing=lambda org_id: ringing_of(self.registry, org_id),
            health=lambda org_id: pulse.read(self.calls, self.chats, org_id, len(self.agents)),
            live=self.registry.calls,
            secure=self.base_url.startswith("https:"),
            key_kept="" if open_to is None else str(self.settings.data_dir / "api_key"),
            mint=lambda channel, agent: self._token_desk.for_key(channel, agent, {}),
        )

    async def run(self) -> None:
        """Serve until `stop`: then calls end, agents are told, and everything is released."""
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self.registry.run(), name="registry")
                store = tasks.create_task(self.store.run(), name="store")
                calls = tasks.create_task(self.calls.run(), name="calls")
                chats = tasks.create_task(self.chats.run(), name="chats")
                sources = tasks.create_task(self._sources.run(), name="organisations")
                numbers = tasks.create_task(self.number_setup.run(), name="numbers")
                self._serving = True
                await self._stopping.wait()
                self._serving = False
                self.phone.close()
                self.dialling.close()
                self.browsers.close()
                self.calls.close()
                self.chats.close()
                await asyncio.gather(calls, chats)
                self.agents.close()
                watch.cancel()
                store.cancel()
                sources.cancel()
                numbers.cancel()
            await self.voices.aclose()
            await self.engines.aclose()
            await self.carriers.aclose()
            await self.store.close()
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Stop `run` and wait for it, at most `STOP_SECONDS`. Idempotent."""
        self._stopping.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._stopped.wait()

    def _browser_rules(self) -> BrowserRules:
        settings = self.settings
        network = Network(settings.webrtc_public_ip, read_ports(settings.webrtc_udp_ports))
        return BrowserRules(
            open_peer=lambda clock, metronome, session: Peer(clock, metronome, network, session),
            per_agent=settings.webrtc_sessions_per_agent,
            per_org=settings.webrtc_sessions_per_org,
            config_wait=settings.pinecall_webrtc_startup_config_wait_ms / 1000,
        )

    def _phone_rules(self) -> PhoneRules:
        return PhoneRules(
            stream_url=lambda: self.stream_url,
            no_agent_message=self.settings.no_agent_message,
            carrier_of=self.carriers.of,
            may_ring=self.organisations.may_ring,
            ringing_seconds=self.settings.ringing_timeout_ms / 1000,
            forward_url=lambda: self.base_url + FORWARD_PATH,
        )

    def _number_rules(self) -> NumberRules:
        settings = self.settings
        webhook = VoiceWebhook(self.base_url + VOICE_PATH, self.base_url + STATUS_PATH)
        return NumberRules(
            carrier_of=self.carriers.of,
            webhook=webhook if settings.twilio_auto_configure else None,
            strict=settings.strict_phone_ownership,
        )

    def _calls_of(self, org_id: str) -> int:
        return self.organisations.limits(org_id).calls

    def _dial_rules(self) -> DialRules:
        # Without an address of our own, only a carrier on this machine finds us.
        near = is_loopback(urlsplit(self.settings.twilio_base_url).hostname or "")
        return DialRules(
            carrier_of=self.carriers.of,
            may_tell=self.organisations.may_ring,
            stream_url=lambda: self.stream_url,
            status_url=lambda: self.base_url + STATUS_PATH,
            answered_url=(lambda: self.base_url + ANSWERED_PATH) if self.settings.dial_amd else None,
            transfer=self.phone.transfer,
            reachable=near or self.settings.public_url is not None,
        )

    def _admit(self, start: StreamStart) -> MediumSink | None:
        """Gives a media stream its call."""
        return self.dialling.admit(start) if start.call_id in self.dialling else self.phone.admit(start)

    def _carrier_token(self, account_sid: str) -> str | None:
        account = self.organisations.carrier_of_account(account_sid)
        return None if account is None else account.auth_token

    def _carrier_tokens(self) -> list[str]:
        return [account.auth_token for account in self.organisations.carriers()]


class GatewayServer(uvicorn.Server):
    """uvicorn that knows its gateway: calls end before the sockets their last events need."""

    gateway: Gateway | None = None
    demo: DemoAgent | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; a port that the system chose becomes part of our own address."""
        await super().startup(sockets)
        if self.gateway is not None and self.servers and self.servers[0].sockets:
            port = self.servers[0].sockets[0].getsockname()[1]
            self.gateway.listens_on(port)
            if self.demo is not None:
                self.demo.listens_on(port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving: calls, then agents, then HTTP."""
        if self.gateway is not None:
            await self.gateway.stop()
        await super().shutdown(sockets)


def _open_routes(app: FastAPI, gateway: Gateway) -> None:
    """Everything that is asked over HTTP, but `/client`."""
    app.include_router(health_routes(gateway))
    app.include_router(chat_routes(ChatDoor(gateway.chats, gateway.tokens, gateway.clock)))
    carrier = carrier_routes(gateway.carrier_door(), gateway.phone, gateway.dialling)
    app.include_router(carrier, include_in_schema=False)
    app.include_router(gateway.token_routes())
    app.include_router(gateway.sdk_routes())
    if gateway.settings.console:
        app.include_router(console_routes(gateway.console_parts()), include_in_schema=False)
    app.include_router(live_routes(gateway.listening, gateway.access), include_in_schema=False)
    app.include_router(gateway.webrtc_routes(), include_in_schema=False)


def create_server(settings: Settings, keys: Keys, engines: CallEngines) -> GatewayServer:
    """A server that is ready to `serve()`. Its gateway comes to life with it, inside the event loop.

    Raises SettingsError for a setting that names something unusable.
    """
    music = hold_music(settings)
    check_store(settings)
    sources = OrganisationSources(settings, keys)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        gateway = server.gateway = Gateway(settings, sources, engines, music)
        _open_routes(app, gateway)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(gateway.run(), name="gateway")
            demo = None if server.demo is None else tasks.create_task(server.demo.run(), name="demo agent")
            yield
            await gateway.stop()
            if demo is not None:
                demo.cancel()

    app = FastAPI(
        title="Voice gateway",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a client of an API does not follow, and may lose its key if it does
    )
    answer_errors(app)
    describe_truly(app)

    @app.websocket("/client")
    async def client(websocket: WebSocket) -> None:  # pyright: ignore[reportUnusedFunction]
        assert server.gateway is not None
        await serve_agent(websocket, server.gateway.agents)

    def accept(request: WSUpgradeRequest, peer: str) -> WSListener | WSUpgradeResponseWithListener | None:
        return None if server.gateway is None else server.gateway.accept_stream(request, peer)

    log_no_requests()
    config = uvicorn.Config(
        BehindProxies(Cors(app), settings.forwarded_allow_ips),
        host=settings.host,
        port=settings.port,
        http=switchboard_protocol(accept),
        ws=ObservedWebSocket,
        ws_ping_interval=None,
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        proxy_headers=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=5,
    )
    server = GatewayServer(config)
    return server
