"""Everything that one process serves, put together: the parts, and the order in which they begin and end."""

from __future__ import annotations

import asyncio
import functools
from contextlib import suppress
from urllib.parse import urlsplit

from picows import WSListener, WSUpgradeRequest, WSUpgradeResponseWithListener

from pipelines.audio.tones import hold_music as built_in_music
from pipelines.audio.wav import read_wav
from pipelines.clock import LoopClock
from pipelines.medium import MediumSink
from providers.base import AudioFormat
from server.agents.agent import RegistryTimes
from server.agents.configuration import ConfigRules
from server.agents.dispatch import AgentGateway
from server.agents.registry import AgentRegistry
from server.api.access import Access
from server.api.carrier import ANSWERED_PATH, FORWARD_PATH, STATUS_PATH, VOICE_PATH
from server.api.tokens import MintRates, TokenDesk
from server.browser import BrowserCalls, BrowserRules
from server.calls import CallRules, Calls
from server.carriers import Carriers
from server.chats import Chats
from server.console.records import Records
from server.dialling import Dialling, DialRules
from server.engines import CallEngines, voice_source
from server.ice import read_ports
from server.live import LiveListening
from server.metrics import Metrics
from server.number_setup import NumberRules, NumberSetup
from server.organisations.sources import OrganisationSources
from server.phone import Phone, PhoneRules
from server.settings import Settings
from server.starting import open_store
from server.supply import Supply
from server.switchboard import STREAM_PATH
from server.tokens import Tokens
from server.voices import Voices
from transports.twilio.door import StreamDoor
from transports.twilio.line import StreamStart
from transports.twilio.records import VoiceWebhook
from transports.twilio.signature import SIGNATURE_HEADER, is_loopback
from transports.webrtc.peer import Peer
from transports.webrtc.tuning import Network

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
        self.token_desk = TokenDesk(self.tokens, self.registry, self.access, rates)
        self.records = Records(settings.console_recent_calls)
        if settings.console:
            self.calls.observers.append(self.records.observe)
            self.chats.observers.append(self.records.observe_chat)
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

    def listens_on(self, port: int) -> None:
        """The port that was really taken; without `PUBLIC_URL` it is part of our address."""
        if self.settings.public_url is None:
            self.base_url = f"http://127.0.0.1:{port}"

    def exposition(self) -> bytes:
        """Metrics in Prometheus' text form."""
        return self.metrics.text()

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

    def carrier_token(self, account_sid: str) -> str | None:
        """What that account of the carrier signs with; None for one that is nobody's."""
        account = self.organisations.carrier_of_account(account_sid)
        return None if account is None else account.auth_token

    def _carrier_tokens(self) -> list[str]:
        return [account.auth_token for account in self.organisations.carriers()]
