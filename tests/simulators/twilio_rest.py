"""Twilio's REST API: Basic auth, urlencoded bodies, Twilio's own errors; calls, numbers, SIP domains, the balance.

Strict like the vendor, and checked with the vendor's own Python client in `tests/test_sim_twilio_rest.py`. Calls that
are made here ring, are answered and tell so by signed callbacks as their `Callee` says.
"""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hmac import compare_digest
from secrets import token_hex

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from demo.caller import SoftwareCaller
from tests.simulators.twilio_callee import Callee, DialledCall, Exchange
from tests.simulators.twilio_forms import (
    CREATE,
    DOMAIN,
    NUMBER,
    UPDATE,
    Refusal,
    SentForm,
    check_new_call,
    check_twiml,
    check_webhook,
)
from tests.simulators.twilio_resources import Domain, Number, page

_LIVE = ("queued", "ringing", "in-progress")
_FORM = "application/x-www-form-urlencoded"


@dataclass
class SimulatedTwilioRest:
    """An account. `calls` maps call SIDs to their status; tests put calls in and see what became of them."""

    account_sid: str = "AC" + "0" * 32
    auth_token: str = "simulated-token"
    calls: dict[str, str] = field(default_factory=dict[str, str])
    twiml: dict[str, str] = field(default_factory=dict[str, str])
    requests: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Method and resource, the call's id where it is about one."""
    outages: list[int] = field(default_factory=list[int])
    """Statuses to answer the next requests with instead of doing the work (500, 503, 429)."""
    retry_after: str = ""
    """What a 429 says about when to come back."""
    placing_s: float = 0.0
    """How long a new call already lives before the request for it is answered."""
    stalled: bool = False
    """Take requests and never answer."""
    base_url: str = ""
    gateway: str = ""
    """Where webhooks and streams really go, whatever public name they are for; empty: where their URL says."""
    numbers: list[Number] = field(default_factory=list[Number])
    domains: list[Domain] = field(default_factory=list[Domain])
    balance: str = "41.07"
    callee: Callee = field(default_factory=Callee)
    """What becomes of a call to anybody not in `callees`."""
    callees: dict[str, Callee] = field(default_factory=dict[str, Callee])
    dials: list[DialledCall] = field(default_factory=list[DialledCall])
    """Calls the gateway made, in order."""
    _telephones: dict[str, SoftwareCaller] = field(default_factory=dict[str, SoftwareCaller])
    _tasks: asyncio.TaskGroup | None = None
    _living: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _dialled: asyncio.Condition = field(default_factory=asyncio.Condition)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[SimulatedTwilioRest]:
        """Serve on a free port of this machine; sets `base_url`. Calls still going on at the end are dropped."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.base_url = f"http://127.0.0.1:{sock.getsockname()[1]}"
            config = uvicorn.Config(self._app(), lifespan="off", log_config=None, timeout_graceful_shutdown=1)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server._serve([sock]))  # pyright: ignore[reportPrivateUsage]
            try:
                async with asyncio.timeout(10):
                    while not server.started:  # noqa: ASYNC110 - uvicorn has nothing to wait for
                        await asyncio.sleep(0.01)
                async with asyncio.TaskGroup() as self._tasks:
                    yield self
                    for living in self._living:
                        living.cancel()
            finally:
                server.should_exit = True
                await serving

    def own(self, *numbers: str) -> None:
        """The account has these numbers; only as one of them may it call anybody."""
        self.numbers += [Number(self.account_sid, number) for number in numbers]

    def attach(self, telephone: SoftwareCaller) -> None:
        """A caller's call that is in progress: what the gateway asks here happens to that telephone."""
        self.calls[telephone.dial.call_sid] = "in-progress"
        self._telephones[telephone.dial.call_sid] = telephone

    async def dialled(self, count: int = 1, patience: float = 20.0) -> DialledCall:
        """The call that was made as the `count`th."""
        async with asyncio.timeout(patience), self._dialled:
            await self._dialled.wait_for(lambda: len(self.dials) >= count)
        return self.dials[count - 1]

    # --- routes ---

    def _app(self) -> FastAPI:
        app = FastAPI()
        root = "/2010-04-01/Accounts/{account_sid}"
        for method, path, serve in (
            ("POST", "/Calls.json", self._create_call),
            ("GET", "/Calls/{sid}.json", self._fetch_call),
            ("POST", "/Calls/{sid}.json", self._update_call),
            ("GET", "/IncomingPhoneNumbers.json", self._list_numbers),
            ("GET", "/IncomingPhoneNumbers/{sid}.json", self._fetch_number),
            ("POST", "/IncomingPhoneNumbers/{sid}.json", self._update_number),
            ("GET", "/SIP/Domains.json", self._list_domains),
            ("GET", "/SIP/Domains/{sid}.json", self._fetch_domain),
            ("POST", "/SIP/Domains/{sid}.json", self._update_domain),
            ("GET", "/Balance.json", self._balance),
        ):
            app.add_api_route(root + path, self._guarded(serve), methods=[method])
        return app

    def _guarded(self, serve: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            about = request.path_params.get("sid") or request.url.path.rpartition("/")[2]
            self.requests.append((request.method, about))
            if self.stalled:
                await asyncio.sleep(60)
            try:
                self._admit(request)
                return await serve(request)
            except Refusal as refusal:
                headers = {"Retry-After": self.retry_after} if refusal.status == 429 and self.retry_after else None
                return JSONResponse(refusal.body(), refusal.status, headers)

        return answer

    def _admit(self, request: Request) -> None:
        if self.outages:
            status = self.outages.pop(0)
            raise Refusal(status, 20429 if status == 429 else 20500, "Simulated outage")
        expected = "Basic " + b64encode(f"{self.account_sid}:{self.auth_token}".encode()).decode()
        given = request.headers.get("authorization", "")
        ours = request.path_params["account_sid"] == self.account_sid
        if not ours or not compare_digest(given.encode(), expected.encode()):
            raise Refusal(401, 20003, "Authenticate")

    # --- calls ---

    async def _create_call(self, request: Request) -> Response:
        form = await _form(request, CREATE)
        check_new_call(form, {number.phone_number for number in self.numbers})
        sid = "CA" + token_hex(16)
        callee = self.callees.get(form.get("To"), self.callee)
        call = DialledCall(sid, form, callee, Exchange(self.account_sid, self.auth_token, self.gateway), self._note)
        self._note(sid, "queued")
        assert self._tasks is not None
        self._living.append(self._tasks.create_task(call.run(), name=f"dialled {sid}"))
        async with self._dialled:
            self.dials.append(call)
            self._dialled.notify_all()
        if self.placing_s:
            await asyncio.sleep(self.placing_s)
        return self._call(sid, 201)

    async def _fetch_call(self, request: Request) -> Response:
        return self._call(self._known_call(request))

    async def _update_call(self, request: Request) -> Response:
        sid = self._known_call(request)
        form = await _form(request, UPDATE)
        if self.calls[sid] not in _LIVE:
            raise Refusal(400, 21220, "Call is not in-progress. Cannot redirect.")
        if "Twiml" in form:
            if self.calls[sid] != "in-progress":
                raise Refusal(400, 21220, "Call is not in-progress. Cannot redirect.")
            check_twiml(form.get("Twiml"))
            self.twiml[sid] = form.get("Twiml")
            self._redirect(sid)
            return self._call(sid)
        status = form.get("Status")
        if status not in ("completed", "canceled"):
            raise Refusal(400, 20001, "Invalid Status")
        if status == "canceled" and self.calls[sid] == "in-progress":
            raise Refusal(400, 21220, "Call is in-progress. Cannot cancel.")
        self._end(sid, status)
        return self._call(sid)

    def _redirect(self, sid: str) -> None:
        dial = self._dial(sid)
        if dial is not None:
            dial.redirect(self.twiml[sid])
        self._leave(sid)

    def _end(self, sid: str, status: str) -> None:
        dial = self._dial(sid)
        if dial is None:
            self.calls[sid] = status
        else:
            # The dialled call notes its own end, once it has told so.
            self.calls[sid] = "canceled" if self.calls[sid] != "in-progress" else "completed"
            dial.end(status)
        self._leave(sid)

    def _leave(self, sid: str) -> None:
        telephone = self._telephones.get(sid)
        if telephone is not None and self._tasks is not None:
            self._tasks.create_task(telephone.hang_up())

    def _known_call(self, request: Request) -> str:
        sid = str(request.path_params["sid"])
        if sid not in self.calls:
            raise _not_found(request)
        return sid

    def _dial(self, sid: str) -> DialledCall | None:
        return next((dial for dial in self.dials if dial.sid == sid), None)

    def _note(self, sid: str, status: str) -> None:
        self.calls[sid] = status

    def _call(self, sid: str, status: int = 200) -> Response:
        dial = self._dial(sid)
        form = None if dial is None else dial.form
        body = {
            "sid": sid,
            "account_sid": self.account_sid,
            "api_version": "2010-04-01",
            "status": self.calls[sid],
            "direction": "inbound" if dial is None else "outbound-api",
            "to": None if form is None else form.get("To"),
            "from": None if form is None else form.get("From"),
            "duration": None,
            "price": None,
            "price_unit": "USD",
            "answered_by": None,
            "uri": f"/2010-04-01/Accounts/{self.account_sid}/Calls/{sid}.json",
        }
        return JSONResponse(body, status)

    # --- numbers, domains, money ---

    async def _list_numbers(self, request: Request) -> Response:
        wanted = request.query_params.get("PhoneNumber")
        found = [number for number in self.numbers if wanted is None or number.phone_number == wanted]
        return page(request, "incoming_phone_numbers", [number.body() for number in found])

    async def _fetch_number(self, request: Request) -> Response:
        return JSONResponse(self._number(request).body())

    async def _update_number(self, request: Request) -> Response:
        number = self._number(request)
        form = await _form(request, NUMBER)
        check_webhook(form)
        number.change(form)
        return JSONResponse(number.body())

    async def _list_domains(self, request: Request) -> Response:
        return page(request, "domains", [domain.body() for domain in self.domains])

    async def _fetch_domain(self, request: Request) -> Response:
        return JSONResponse(self._domain(request).body())

    async def _update_domain(self, request: Request) -> Response:
        domain = self._domain(request)
        form = await _form(request, DOMAIN)
        check_webhook(form)
        domain.change(form)
        return JSONResponse(domain.body())

    async def _balance(self, request: Request) -> Response:
        return JSONResponse({"account_sid": self.account_sid, "balance": self.balance, "currency": "USD"})

    def _number(self, request: Request) -> Number:
        found = next((number for number in self.numbers if number.sid == request.path_params["sid"]), None)
        if found is None:
            raise _not_found(request)
        return found

    def _domain(self, request: Request) -> Domain:
        found = next((domain for domain in self.domains if domain.sid == request.path_params["sid"]), None)
        if found is None:
            raise _not_found(request)
        return found


async def _form(request: Request, names: frozenset[str]) -> SentForm:
    if request.headers.get("content-type", "").partition(";")[0] != _FORM:
        raise Refusal(400, 20001, "Unsupported content type")
    return SentForm((await request.body()).decode(), names)


def _not_found(request: Request) -> Refusal:
    return Refusal(404, 20404, f"The requested resource {request.url.path} was not found")
