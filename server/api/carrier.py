"""The carrier's webhooks: a call comes in, fares on, or was transferred (behaviour §3.1, §3.5, §3.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import structlog
from fastapi import APIRouter, Request, Response

from server.dialling import Dialling
from server.phone import Phone
from transports.twilio import twiml
from transports.twilio.signature import SIGNATURE_HEADER, Form, is_loopback, parse_form, verify_webhook

log = structlog.get_logger(__name__)

MAX_BODY = 64 * 1024
VOICE_PATH = "/twilio/voice"
STATUS_PATH = "/twilio/status"
ANSWERED_PATH = "/twilio/answered"
FORWARD_PATH = "/twilio/forward-status"


@dataclass(frozen=True, slots=True)
class CarrierDoor:
    """Who may call. Without an auth token nothing can be verified, so only this machine may (and no proxy on it)."""

    public_url: str | None
    token_of: Callable[[str], str | None]
    """The auth token of an account, by its sid; None where nothing is known to verify it with."""
    validate: bool = True

    def admits(self, request: Request, form: Form) -> bool:
        """Whether this request comes from the carrier."""
        if not self.validate:
            return True
        token = self.token_of(_account(request, form))
        if token is None:
            if self.public_url is not None:
                # Known to the world: what looks like this machine may be a proxy that does not say so.
                return False
            peer = request.client.host if request.client is not None else ""
            return is_loopback(peer) and "x-forwarded-for" not in request.headers
        return verify_webhook(token, self._called(request), form, request.headers.get(SIGNATURE_HEADER))

    def _called(self, request: Request) -> str:
        """The URL as the carrier called it: the public one, never one made from a Host header behind a proxy."""
        if self.public_url is None:
            return str(request.url)
        query = f"?{request.url.query}" if request.url.query else ""
        return f"{self.public_url}{request.url.path}{query}"


def _account(request: Request, form: Form) -> str:
    """The account that a webhook says it is from. Nothing is believed yet: it chooses the token to verify with."""
    return dict(form if request.method == "POST" else request.query_params.multi_items()).get("AccountSid", "")


async def _while_waited_for(request: Request, answer: Coroutine[None, None, str]) -> str:
    """The answer to a request whose body was read; whoever asked may hang up before there is one, which cancels it."""

    async def leave() -> None:
        # The body was read: the only thing that is still to come is that they have gone.
        await request.receive()

    async with asyncio.TaskGroup() as tasks:
        answering, leaving = tasks.create_task(answer), tasks.create_task(leave())
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()
        leaving.cancel()
    return "" if answering.cancelled() else answering.result()


def carrier_routes(door: CarrierDoor, phone: Phone, dialling: Dialling) -> APIRouter:
    """The webhooks of one gateway."""
    routes = APIRouter()

    async def fields(request: Request) -> dict[str, str] | None:
        """The verified fields of a webhook; None for a stranger."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return None
        form = parse_form(body) if request.method == "POST" else ()
        if not door.admits(request, form):
            peer = request.client.host if request.client is not None else ""
            log.warning("webhook_refused", peer=peer, signed=SIGNATURE_HEADER.lower() in request.headers)
            return None
        return dict(form if request.method == "POST" else request.query_params.multi_items())

    @routes.api_route(VOICE_PATH, methods=["GET", "POST"])
    async def voice(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        form = await fields(request)
        if form is None:
            return Response(status_code=403)
        answer = await _while_waited_for(request, phone.ring(form))
        return Response(answer, media_type="text/xml")

    @routes.post(STATUS_PATH)
    async def status(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        form = await fields(request)
        if form is None:
            return Response(status_code=403)
        dialling.status(request.query_params.get("dial", ""), form)
        phone.status(form)
        return Response(status_code=204)

    @routes.post(ANSWERED_PATH)
    async def answered(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        form = await fields(request)
        if form is None:
            return Response(status_code=403)
        answer = dialling.answered(request.query_params.get("dial", ""), form)
        return Response(answer, media_type="text/xml")

    @routes.post(FORWARD_PATH)
    async def forwarded(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        form = await fields(request)
        if form is None:
            return Response(status_code=403)
        log.info("transfer_over", call_id=form.get("CallSid", ""), outcome=form.get("DialCallStatus", ""))
        return Response(twiml.hang_up(), media_type="text/xml")

    return routes
