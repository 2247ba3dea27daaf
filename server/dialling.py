"""Calls that agents make (behaviour §3.4): from the command to a live call, or to the one frame that says why not.

Dials know nothing of each other. Each has a task only while the carrier is asked; the rest is what the carrier tells
(`status`, `admit`), what the agent does, and the dial's own deadline.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from pipelines.greeting import Cue, Opening
from pipelines.ids import new_id
from pipelines.medium import MediumSink, Transfer
from pipelines.parts import CallFacts
from providers.base import MULAW_8K
from providers.errors import ProviderError
from server.agents.agent import Agent
from server.agents.channels import Refusal
from server.agents.link import AgentLink
from server.calls import Calls, ExpectedCall
from server.dial import Dial
from server.dial_order import DialRefused, Parties, layers, parties
from server.dial_progress import Outcome
from transports.twilio import twiml
from transports.twilio.line import StreamStart
from transports.twilio.records import CallRecord, NewCall
from transports.twilio.rest import CarrierError, CarrierRefused
from wire.commands import CallDial
from wire.errors import ConfigError

log = structlog.get_logger(__name__)

SILENCE_SECONDS: Final = 5.0
"""Somebody who picks up and says nothing is greeted after that long, `detect_turn_end` or not."""
STRAY_SECONDS: Final = 60.0
"""How long a call is waited for that the carrier may have placed without our ever hearing so, to call it off."""
OUR_FAULT: Final = Outcome("failed", "the gateway failed; its log says why", "INTERNAL_ERROR")


class DialCarrier(Protocol):
    """What is asked of the carrier's own API. Both take a few seconds at most and raise CarrierError."""

    async def create_call(self, call: NewCall) -> CallRecord:
        """Have somebody called."""
        ...

    async def cancel(self, call_sid: str) -> None:
        """Stop ringing; end a call that was picked up just now."""
        ...


@dataclass(frozen=True, slots=True)
class DialRules:
    """What the operator decides, and where the carrier finds us."""

    carrier_of: Callable[[str], DialCarrier | None]
    """The account that an organisation calls with; None without one."""
    may_tell: Callable[[str, str], bool]
    """Whether what that carrier account says may concern that organisation."""
    stream_url: Callable[[], str]
    status_url: Callable[[], str]
    transfer: Callable[[CallFacts], Transfer | None]
    """How somebody who was called is connected elsewhere."""
    answered_url: Callable[[], str] | None = None
    """Where the carrier says who answered, a person or a machine; None: it is not asked."""
    reachable: bool = True
    """Whether the carrier can find us at all."""


class Dialling:
    """All dials of this process."""

    def __init__(self, calls: Calls, rules: DialRules, count: Callable[[str], None]) -> None:
        """`count` gets the reason of every dial that never becomes a call."""
        self.clock = calls.registry.clock
        self.live = calls.registry.calls
        self._calls = calls
        self._rules = rules
        self._count = count
        self._dials: dict[str, Dial] = {}
        self._strays: dict[str, DialCarrier] = {}

    def __len__(self) -> int:
        """Telephones that ring."""
        return len(self._dials)

    def close(self) -> None:
        """Call everything off. Before the calls close: they own the tasks that tell the carrier."""
        for dial in list(self._dials.values()):
            dial.end("shutdown")
        self._strays.clear()

    # --- the agent ---

    def dial(self, link: AgentLink, command: CallDial) -> None:
        """Carry out a command. Never raises: whatever is wrong with it, its sender hears in one `call.ended`."""
        agent_id = command.agent_id
        try:
            agent = self._calls.registry.owned(link, agent_id)
            agent_id = agent.agent_id
            self._dial(agent, command)
        except Refusal as refusal:
            self._refuse(link, agent_id, command, Outcome("failed", refusal.error, refusal.code))
        except DialRefused as refusal:
            self._refuse(link, agent_id, command, refusal.outcome)
        except Exception:
            # The root of one command: the connection has others.
            log.exception("dial_failed", agent=agent_id[:80], org=link.org_id)
            self._refuse(link, agent_id, command, OUR_FAULT)

    def _dial(self, agent: Agent, command: CallDial) -> None:
        who = parties(command, agent.channels.values())
        carrier = self._rules.carrier_of(agent.key.org_id)
        if carrier is None:
            raise DialRefused("this gateway has no carrier account to call with", "CARRIER_NOT_CONFIGURED")
        if not self._rules.reachable:
            raise DialRefused("the carrier cannot reach this gateway: PUBLIC_URL is not set", "CARRIER_NOT_CONFIGURED")
        full = self._calls.refusal(agent.key.org_id)
        if full is not None:
            raise DialRefused(f"this gateway takes no more calls now ({full})", "SERVER_AT_CAPACITY")
        expected = self._expect(agent, command, who)
        opening = None
        if expected.session.config.greeting:
            opening = Opening(Cue.TURN_END, SILENCE_SECONDS) if command.detect_turn_end else Opening()
        dial = self._dials[expected.call_id] = Dial(expected, opening, self)
        dial.start(agent.link, agent.agent_id)
        self._calls.spawn(self._place(dial, carrier, who), "dial")

    def _expect(self, agent: Agent, command: CallDial, who: Parties) -> ExpectedCall:
        facts = CallFacts(
            call_id=new_id("dial"),
            org_id=agent.key.org_id,
            slug=agent.key.slug,
            from_=who.caller,
            to=command.to,
            direction="outbound",
            transport="phone",
            metadata=command.metadata,
        )
        try:
            session = self._calls.session(agent.key.org_id, layers(command, agent, who.channel))
            return self._calls.expect(facts, session, MULAW_8K, rehearse=True)
        except (ConfigError, ProviderError) as error:
            raise DialRefused(str(error), error.code) from None

    # --- the carrier ---

    async def _place(self, dial: Dial, carrier: DialCarrier, who: Parties) -> None:
        answered = self._rules.answered_url
        order = NewCall(
            to=who.to,
            caller=who.caller,
            twiml="" if answered is not None else self._stream(dial),
            url="" if answered is None else f"{answered()}?dial={dial.dial_id}",
            status_callback=f"{self._rules.status_url()}?dial={dial.dial_id}",
            detect_machine=answered is not None,
        )
        try:
            record = await carrier.create_call(order)
        except CarrierError as error:
            if not dial.placed:
                self._failed(dial, carrier, error)
        except Exception:
            # The root of this task: whatever is wrong, the agent must hear of it.
            log.exception("dial_failed", dial_id=dial.dial_id)
            dial.finish(OUR_FAULT)
        else:
            self._strays.pop(dial.dial_id, None)
            if not dial.known(record.sid) and dial.call_id != record.sid:
                # It was called off before the carrier had answered.
                await _cancel(carrier, record.sid)

    def _failed(self, dial: Dial, carrier: DialCarrier, error: CarrierError) -> None:
        if not isinstance(error, CarrierRefused):
            # The carrier may have heard us and call all the same.
            self._await_stray(dial, carrier)
        dial.finish(Outcome("failed", str(error), "CARRIER_ERROR"), told=True)

    def status(self, dial_id: str, form: Mapping[str, str]) -> None:
        """The carrier tells how a dial fares; late, twice, early and out of order are all fine."""
        call_id, account = form.get("CallSid", ""), form.get("AccountSid", "")
        dial = self._dials.get(dial_id)
        if not call_id:
            return
        if dial is not None and self._rules.may_tell(account, dial.org_id) and dial.known(call_id):
            dial.told(form.get("CallStatus", ""))
        elif dial is None and (carrier := self._strays.pop(dial_id, None)) is not None:
            log.warning("stray_call", dial_id=dial_id, call_id=call_id)
            self._calls.spawn(_cancel(carrier, call_id), "cancel")

    def answered(self, dial_id: str, form: Mapping[str, str]) -> str:
        """The carrier knows who answered, and asks what to do; the answer is TwiML."""
        call_id, account = form.get("CallSid", ""), form.get("AccountSid", "")
        dial = self._dials.get(dial_id)
        told = dial is not None and call_id and self._rules.may_tell(account, dial.org_id)
        if dial is None or not told or not dial.known(call_id):
            return twiml.hang_up()
        dial.told("in-progress")
        by_whom = form.get("AnsweredBy", "")
        if by_whom:
            dial.note("answered_by", by_whom)
        return self._stream(dial)

    def __contains__(self, call_id: str) -> bool:
        """Whether a media stream that names this id is that of a dial."""
        return call_id in self._dials

    def admit(self, start: StreamStart) -> MediumSink | None:
        """A media stream says that somebody picked up; its secret counts once."""
        dial = self._dials.get(start.call_id)
        if dial is None or not hmac.compare_digest(dial.secret.encode(), start.key.encode()):
            return None
        if not dial.known(start.call_sid):
            return None
        dial.connect()
        del self._dials[dial.dial_id]
        transfer = self._rules.transfer(dial.expected.facts)
        try:
            return self._calls.begin(dial.expected, start.medium, transfer=transfer, opening=dial.opening)
        except LookupError:
            return None

    # --- Desk ---

    def over(self, dial: Dial, outcome: Outcome, *, told: bool) -> None:
        """A dial will never be a call."""
        del self._dials[dial.dial_id]
        self._calls.forget(dial.expected)
        self._count(outcome.reason)
        carrier = self._rules.carrier_of(dial.org_id)
        if carrier is None or told:
            return
        if dial.placed:
            self._calls.spawn(_cancel(carrier, dial.call_id), "cancel")

    # --- inside ---

    def _stream(self, dial: Dial) -> str:
        parameters = {"call_id": dial.dial_id, "key": dial.secret}
        return twiml.connect_stream(self._rules.stream_url(), parameters)

    def _await_stray(self, dial: Dial, carrier: DialCarrier) -> None:
        self._strays[dial.dial_id] = carrier
        asyncio.get_running_loop().call_later(STRAY_SECONDS, self._strays.pop, dial.dial_id, None)

    def _refuse(self, link: AgentLink, agent_id: str, command: CallDial, outcome: Outcome) -> None:
        """Nothing was dialled."""
        call_id, now = new_id("dial"), self.clock.wall()
        facts = CallFacts(call_id, "", "", command.from_, command.to, "outbound", "phone", command.metadata)
        ended = facts.ended(outcome.reason, (now, now), [])
        ended.agent_id, ended.call_id, ended.session_id = agent_id, call_id, call_id
        ended.error, ended.code = outcome.error, outcome.code
        ended.seq, ended.ts = 1, now
        link.deliver(ended)
        self._count(outcome.reason)
        log.info("dial_refused", agent=agent_id[:80], org=link.org_id, code=outcome.code, error=outcome.error)


async def _cancel(carrier: DialCarrier, call_sid: str) -> None:
    """Nobody waits for this call any more. Should the carrier not hear us, its stream will not be let in."""
    try:
        await carrier.cancel(call_sid)
    except CarrierError as error:
        log.warning("cancel_failed", call_id=call_sid, error=str(error))
    except Exception:
        # The root of a task that others must not suffer from.
        log.exception("cancel_failed", call_id=call_sid)
