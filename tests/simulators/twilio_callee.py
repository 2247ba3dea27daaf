"""Whom the gateway calls: a call that Twilio places, from ringing to its last status callback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import Enum, auto
from urllib.parse import urlsplit

import httpx2

from demo.caller import SoftwareCaller
from demo.dialling import Answer, Dial, DialFailed, Outcome, read_twiml
from tests.simulators.twilio_forms import SentForm

FINAL = ("completed", "busy", "failed", "no-answer", "canceled")
_EVENT = {"initiated": "initiated", "ringing": "ringing", "in-progress": "answered"}


class Order(Enum):
    """How status callbacks travel."""

    STRAIGHT = auto()
    TWICE = auto()
    REVERSED = auto()
    """All together after the end, the last one first."""
    NEVER = auto()


@dataclass(frozen=True)
class Callee:
    """What becomes of a call to somebody: `answer`, `busy`, `no-answer`, `failed`. Times are seconds."""

    what: str = "answer"
    rings_s: float = 1.0
    """How long it rings before that happens; nobody answers longer than the call's `Timeout`."""
    overtime_s: float = 0.0
    """How much longer than the call's `Timeout` it rings."""
    answered_by: str = "human"
    recognised_s: float = 0.5
    """How long detection of answering machines takes."""
    order: Order = Order.STRAIGHT
    late_s: float = 0.0
    """How long each status callback is under way."""


@dataclass(frozen=True)
class Exchange:
    """Where the gateway can be reached: requests to any public name go to `gateway`, signed over the public URL."""

    account_sid: str
    auth_token: str
    gateway: str = ""

    async def post(self, url: str, form: dict[str, str]) -> httpx2.Response:
        """A signed webhook. Raises httpx2.HTTPError."""
        parts = urlsplit(url)
        target = url
        if self.gateway:
            target = self.gateway + parts.path + (f"?{parts.query}" if parts.query else "")
        headers = Dial(self.gateway, "", auth_token=self.auth_token).signature(url, form)
        async with httpx2.AsyncClient(timeout=15, trust_env=False) as http:
            return await http.post(target, data=form, headers=headers)


@dataclass(eq=False)
class DialledCall:
    """One call that the gateway asked for. `note` is told each status; tests hold `telephone` once it is answered."""

    sid: str
    form: SentForm
    callee: Callee
    exchange: Exchange
    note: Callable[[str, str], None]
    twiml: str = ""
    """What was said to do instead, while it ran."""
    telephone: SoftwareCaller | None = None
    answers: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Status callbacks that were delivered: the status told, and what the gateway answered (0: nothing)."""
    faults: list[str] = field(default_factory=list[str])
    """Why a call that was answered could not be connected with the gateway."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """The call has ended and all callbacks were delivered."""
    status: str = "queued"
    _answered: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _left: asyncio.Event = field(default_factory=asyncio.Event)
    """The media stream is to be left."""
    _in_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _end: str = "completed"
    _answered_at: float = 0.0
    _sequence: int = 0
    _kept: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    @property
    def to(self) -> str:
        """Who is called."""
        return self.form.get("To")

    async def picked_up(self, patience: float = 20.0) -> SoftwareCaller:
        """The callee's telephone, once its media stream is open."""
        async with asyncio.timeout(patience):
            await self._answered.wait()
        assert self.telephone is not None, self.faults
        return self.telephone

    def end(self, status: str) -> None:
        """Somebody ends it: `canceled`, `completed`, or what the network says."""
        self._end = status
        self._ended.set()
        self._left.set()

    def redirect(self, twiml: str) -> None:
        """Other TwiML takes over: the media stream ends, the call goes on until somebody ends it."""
        self.twiml = twiml
        self._left.set()

    async def run(self) -> None:
        """Live."""
        try:
            async with asyncio.TaskGroup() as posts:
                await self._become("initiated", posts)
                await self._live(posts)
        finally:
            self._answered.set()
            self.over.set()

    async def _live(self, posts: asyncio.TaskGroup) -> None:
        await self._become("ringing", posts)
        await self._finish(await self._ring() or await self._talk(posts), posts)

    async def _ring(self) -> str:
        """How it ends before anybody answered; empty when somebody does."""
        limit = float(self.form.get("Timeout", "60")) + self.callee.overtime_s
        answered = self.callee.what != "no-answer" and self.callee.rings_s < limit
        if await self._ends_within(self.callee.rings_s if answered else limit):
            return self._end if self._end in FINAL and self._end != "completed" else "canceled"
        if not answered:
            return "no-answer"
        return "" if self.callee.what == "answer" else self.callee.what

    async def _talk(self, posts: asyncio.TaskGroup) -> str:
        detecting = "MachineDetection" in self.form and not self.form.get("SendDigits")
        asynchronous = self.form.get("AsyncAmd") == "true"
        if detecting and not asynchronous and await self._ends_within(self.callee.recognised_s):
            return self._end
        self._answered_at = asyncio.get_running_loop().time()
        await self._become("in-progress", posts)
        if detecting and asynchronous and self.form.get("AsyncAmdStatusCallback"):
            posts.create_task(self._recognised())
        try:
            answer = await self._instructions(detecting and not asynchronous)
        except (DialFailed, httpx2.HTTPError) as fault:
            self.faults.append(str(fault))
            return "completed"
        if answer.outcome is not Outcome.CONNECTED:
            return "completed"
        dial = Dial(
            self.exchange.gateway or _origin(answer.stream_url),
            self.to,
            self.form.get("From"),
            self.exchange.auth_token,
            account_sid=self.exchange.account_sid,
            call_sid=self.sid,
        )
        async with SoftwareCaller(dial, max_lead_ms=250) as telephone:
            try:
                await telephone.pick_up(answer)
            except DialFailed as fault:
                self.faults.append(str(fault))
                return "completed"
            self.telephone = telephone
            self._answered.set()
            await self._until_the_stream_is_over(telephone)
        if self.twiml:
            await self._ended.wait()
        return "completed"

    async def _instructions(self, told_by_whom: bool) -> Answer:
        twiml = self.form.get("Twiml")
        if twiml:
            return read_twiml(twiml.encode())
        fields = self._fields("in-progress")
        if told_by_whom:
            fields["AnsweredBy"] = self.callee.answered_by
        response = await self.exchange.post(self.form.get("Url"), fields)
        if not response.is_success:
            raise DialFailed(f"the gateway answered {response.status_code}")
        return read_twiml(response.content)

    async def _until_the_stream_is_over(self, telephone: SoftwareCaller) -> None:
        line = asyncio.create_task(telephone.wait_ended(timeout_s=86400))
        call = asyncio.create_task(self._left.wait())
        try:
            await asyncio.wait((line, call), return_when=asyncio.FIRST_COMPLETED)
        finally:
            line.cancel()
            call.cancel()
            await asyncio.gather(line, call, return_exceptions=True)

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def _recognised(self) -> None:
        await asyncio.sleep(self.callee.recognised_s)
        fields = {
            "CallSid": self.sid,
            "AccountSid": self.exchange.account_sid,
            "AnsweredBy": self.callee.answered_by,
            "MachineDetectionDuration": str(round(self.callee.recognised_s * 1000)),
        }
        await self._deliver(self.form.get("AsyncAmdStatusCallback"), fields)

    # --- status callbacks ---

    async def _become(self, status: str, posts: asyncio.TaskGroup) -> None:
        self.status = "queued" if status == "initiated" else status
        self.note(self.sid, self.status)
        wanted = self.form.all("StatusCallbackEvent") or ["completed"]
        if not self.form.get("StatusCallback") or _EVENT.get(status, "completed") not in wanted:
            return
        fields = self._fields(status)
        fields |= {"CallbackSource": "call-progress-events", "SequenceNumber": str(self._sequence)}
        fields["Timestamp"] = formatdate(time.time())
        self._sequence += 1
        if status in FINAL:
            fields["CallDuration"] = str(self._seconds())
        if self.callee.order is Order.REVERSED:
            self._kept.insert(0, fields)
        elif self.callee.order is not Order.NEVER:
            times = 2 if self.callee.order is Order.TWICE else 1
            for _ in range(times):
                posts.create_task(self._call_back(fields))

    async def _finish(self, status: str, posts: asyncio.TaskGroup) -> None:
        self._ended.set()
        await self._become(status, posts)
        for fields in self._kept:
            await self._call_back(fields)

    async def _call_back(self, fields: dict[str, str]) -> None:
        await asyncio.sleep(self.callee.late_s)
        async with self._in_turn:
            answered = await self._deliver(self.form.get("StatusCallback"), fields)
        self.answers.append((fields["CallStatus"], answered))

    async def _deliver(self, url: str, fields: dict[str, str]) -> int:
        try:
            return (await self.exchange.post(url, fields)).status_code
        except httpx2.HTTPError:
            return 0

    def _seconds(self) -> int:
        return round(asyncio.get_running_loop().time() - self._answered_at) if self._answered_at else 0

    def _fields(self, status: str) -> dict[str, str]:
        caller = self.form.get("From")
        return {
            "CallSid": self.sid,
            "AccountSid": self.exchange.account_sid,
            "From": caller,
            "To": self.to,
            "Caller": caller,
            "Called": self.to,
            "CallStatus": status,
            "ApiVersion": "2010-04-01",
            "Direction": "outbound-api",
        }


def _origin(stream_url: str) -> str:
    parts = urlsplit(stream_url)
    return f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}"
