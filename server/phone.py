"""Phone calls: from the carrier's webhook to a live call (behaviour §3.2).

The webhook finds the agent, resolves what the call is configured with and warms its voice while the carrier opens the
media stream; the stream's one-time secret turns that into a call. A call that never opens its stream leaves no trace.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from pipelines.medium import Connect, MediumSink, Transfer, TransferFailed
from pipelines.parts import CallFacts
from providers.base import MULAW_8K
from providers.errors import ProviderError
from server.calls import Calls, ExpectedCall
from server.dial_order import DialRefused, callee
from server.routing import Nobody, Routed, Router
from server.screening import Screening, Verdict
from transports.twilio import twiml
from transports.twilio.line import StreamStart
from transports.twilio.numbers import is_e164, normalise, reported
from transports.twilio.rest import CarrierError
from transports.twilio.sip import sip_metadata
from wire.errors import ConfigError

log = structlog.get_logger(__name__)

STREAM_SECONDS: Final = 30.0
"""A call whose media stream has not opened by then is forgotten."""
AGENT_PATIENCE: Final = 5.0
"""How long the webhook waits for an agent that dropped a moment ago."""
SAFETY_NET_SECONDS: Final = 30.0
"""A call that the carrier says is over ends by then, should its stream not have told."""
FINAL_STATUSES: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})


class Carrier(Protocol):
    """What is asked of the carrier's own API. Both raise CarrierError."""

    async def hang_up(self, call_sid: str) -> None:
        """End a call in progress."""
        ...

    async def redirect(self, call_sid: str, twiml: str) -> None:
        """Let a call go on with other TwiML."""
        ...


@dataclass(frozen=True, slots=True)
class PhoneRules:
    """What the operator decides. `no_agent_message` None means a bare rejection."""

    stream_url: Callable[[], str]
    no_agent_message: str | None = None
    carrier_of: Callable[[str], Carrier | None] = lambda _org_id: None
    """An organisation's carrier ends calls whose media stream never opened, and transfers callers; None without an
    account."""
    forward_url: Callable[[], str] = lambda: ""
    """Where the carrier tells the outcome of a transfer."""
    may_ring: Callable[[str, str], bool] = lambda _account_sid, _org_id: True
    """Whether what that carrier account says may concern that organisation."""
    ringing_seconds: float = 5.0
    """How long a channel that screens its calls is asked."""


@dataclass(slots=True, eq=False)
class _Ringing:
    """A call whose stream is on its way."""

    call: ExpectedCall
    secret: str
    timer: asyncio.TimerHandle


class Phone:
    """The telephone's door to the calls of this process."""

    def __init__(self, calls: Calls, rules: PhoneRules) -> None:
        self._calls = calls
        self._router = Router(calls.registry)
        self._rules = rules
        self._ringing: dict[str, _Ringing] = {}
        self._screening = Screening(calls.registry, rules.ringing_seconds)

    def close(self) -> None:
        """Nothing rings any more: the gateway goes down."""
        self._screening.close()

    # --- the webhook ---

    async def ring(self, form: Mapping[str, str]) -> str:
        """The carrier asks what to do with a call; the answer is TwiML. Never raises for what an agent configured."""
        call_id, to, caller = form.get("CallSid", ""), form.get("To", ""), form.get("From", "")
        if not call_id or not to:
            return twiml.reject()
        asked = self._ringing.get(call_id) if call_id in self._screening else None
        if asked is not None and self._rules.may_ring(form.get("AccountSid", ""), asked.call.facts.org_id):
            # The carrier asks again; there is one answer.
            return await self._screened(asked)
        refusal = self._refusal(call_id, "")
        if refusal is not None:
            return refusal
        may_ring = functools.partial(self._rules.may_ring, form.get("AccountSid", ""))
        routed = await self._router.route_soon(to, caller, AGENT_PATIENCE, may_ring)
        if isinstance(routed, Nobody):
            return self._unanswered(call_id, routed.reason)
        # Others may have rung while this one waited for its agent.
        refusal = self._refusal(call_id, routed.agent.key.org_id)
        if refusal is not None:
            return refusal
        try:
            ringing = self._expect(form, routed)
        except (ConfigError, ProviderError) as error:
            log.warning("call_refused", call_id=call_id, agent=routed.agent.key.slug, error=str(error))
            return twiml.reject()
        return await self._screened(ringing) if routed.channel.ringing else self._answered(ringing)

    def status(self, form: Mapping[str, str]) -> None:
        """The carrier tells how a call fares; duplicates and late ones are fine."""
        call_id = form.get("CallSid", "")
        if form.get("CallStatus") not in FINAL_STATUSES:
            return
        account = form.get("AccountSid", "")
        ringing = self._ringing.get(call_id)
        if ringing is not None and self._rules.may_ring(account, ringing.call.facts.org_id):
            self._screening.caller_left(call_id)
            self._forget(ringing)
        call = self._calls.find(call_id)
        if call is not None and self._rules.may_ring(account, call.org_id):
            asyncio.get_running_loop().call_later(SAFETY_NET_SECONDS, call.end, "hangup")

    async def _screened(self, ringing: _Ringing) -> str:
        """Let the agent decide. Whoever asked may be cancelled; the call is forgotten when nobody asks any more."""
        call_id = ringing.call.call_id
        verdict = Verdict.CALLER_LEFT
        try:
            verdict = await self._screening.verdict(ringing.call.facts)
        finally:
            if verdict is not Verdict.ACCEPTED and call_id not in self._screening:
                self._forget(ringing)
        match verdict:
            case Verdict.ACCEPTED if self._ringing.get(call_id) is ringing:
                return self._answered(ringing)
            case Verdict.BUSY | Verdict.CLOSING:
                return twiml.reject("busy")
            case Verdict.AGENT_LEFT:
                return self._unanswered(call_id, "agent_offline")
            case _:
                return twiml.reject()

    def _answered(self, ringing: _Ringing) -> str:
        parameters = {"call_id": ringing.call.call_id, "key": ringing.secret}
        return twiml.connect_stream(self._rules.stream_url(), parameters)

    def _unanswered(self, call_id: str, reason: str) -> str:
        log.info("call_unanswered", call_id=call_id, reason=reason)
        message = self._rules.no_agent_message
        return twiml.say_and_hang_up(message) if message else twiml.reject()

    def _refusal(self, call_id: str, org_id: str) -> str | None:
        """Why no call of that id can begin now, as TwiML; None when it can. `org_id` is empty while nobody knows."""
        if self._calls.find(call_id) is not None or self._calls.registry.calls.find(org_id, call_id) is not None:
            log.warning("call_refused", call_id=call_id, reason="already_live")
            return twiml.reject()
        full = self._calls.refusal(org_id, besides=call_id)
        if full is not None:
            log.warning("call_refused", call_id=call_id, reason=full, org=org_id)
            return twiml.reject("busy")
        return None

    def _expect(self, form: Mapping[str, str], routed: Routed) -> _Ringing:
        call_id = form["CallSid"]
        again = self._ringing.get(call_id)
        if again is not None:
            self._forget(again)
        key = routed.agent.key
        facts = CallFacts(
            call_id=call_id,
            org_id=key.org_id,
            slug=key.slug,
            from_=reported(form.get("From", "")),
            to=reported(form["To"]),
            direction="inbound",
            transport="phone",
            metadata=sip_metadata(form),
        )
        session = self._calls.session(key.org_id, [routed.agent.layer, routed.channel.layer])
        expected = self._calls.expect(facts, session, MULAW_8K)
        timer = asyncio.get_running_loop().call_later(STREAM_SECONDS, self._never_opened, call_id)
        ringing = self._ringing[call_id] = _Ringing(expected, secrets.token_urlsafe(24), timer)
        return ringing

    def _never_opened(self, call_id: str) -> None:
        log.warning("stream_never_opened", call_id=call_id)
        ringing = self._ringing[call_id]
        self._forget(ringing)
        carrier = self._rules.carrier_of(ringing.call.facts.org_id)
        if carrier is not None:
            self._calls.spawn(_hang_up(carrier, call_id), "hang up")

    def _forget(self, ringing: _Ringing) -> None:
        self._take(ringing)
        self._calls.forget(ringing.call)

    def _take(self, ringing: _Ringing) -> None:
        self._ringing.pop(ringing.call.call_id, None)
        ringing.timer.cancel()

    # --- the stream ---

    def admit(self, start: StreamStart) -> MediumSink | None:
        """A media stream says which call it is; its secret counts once."""
        ringing = self._ringing.get(start.call_id)
        if ringing is None or not hmac.compare_digest(ringing.secret.encode(), start.key.encode()):
            return None
        self._take(ringing)
        try:
            return self._calls.begin(ringing.call, start.medium, transfer=self.transfer(ringing.call.facts))
        except LookupError:
            return None

    def transfer(self, facts: CallFacts) -> Transfer | None:
        """How the other side of this call is connected elsewhere; who is called there sees our number."""
        ours = normalise(facts.to if facts.direction == "inbound" else facts.from_).partition("@")[0]
        caller_id = ours if is_e164(ours) else ""
        carrier = self._rules.carrier_of(facts.org_id)
        if carrier is None:
            return None

        def transfer(to: str) -> Connect:
            try:
                # The carrier would take any text for a number, and hang up on the caller.
                document = twiml.dial(callee(to), caller_id, self._rules.forward_url())
            except DialRefused as error:
                raise TransferFailed(str(error)) from error

            async def connect() -> None:
                try:
                    await carrier.redirect(facts.call_id, document)
                except CarrierError as error:
                    raise TransferFailed(str(error)) from error

            return connect

        return transfer


async def _hang_up(carrier: Carrier, call_id: str) -> None:
    """The caller is in a call that we know nothing of: let them go."""
    try:
        await carrier.hang_up(call_id)
    except CarrierError as error:
        log.warning("hang_up_failed", call_id=call_id, error=str(error))
    except Exception:
        log.exception("hang_up_failed", call_id=call_id)
