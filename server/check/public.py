"""The way in from the world: PUBLIC_URL, its certificate, whether websockets pass, and whether our clock is right."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from statistics import median
from typing import Final

import httpx2
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from server.check.findings import DEADLINE, Finding, Visit, failed, note, ok, warning, why

_WHAT: Final = "PUBLIC_URL"
_SKEW: Final = 5.0
_BAD_SKEW: Final = 240.0
"""AWS refuses requests that are signed five minutes off."""


class _Health(msgspec.Struct):
    status: str


async def check_public(visit: Visit) -> list[Finding]:
    """Can a carrier and browsers get in? As far as that can be seen from this machine."""
    settings = visit.settings
    if settings.public_url is None:
        advice = "Set it to the address that carriers and browsers shall use, such as https://voice.example.com."
        text = "not set: only this machine can call, and nothing outside can be verified"
        if settings.twilio_auth_token is not None:
            return [failed(_WHAT, "not set: Twilio cannot reach us, and its signatures cannot be verified", advice)]
        return [note(_WHAT, text, advice)]
    findings: list[Finding] = []
    if not settings.public_url.startswith("https://"):
        advice = "Put a proxy with a certificate before the gateway and name its https address."
        findings.append(failed(_WHAT, "is not https: Twilio opens media streams over TLS only", advice))
    if settings.twilio_auth_token is None and not visit.organisations.carriers():
        advice = "Set TWILIO_AUTH_TOKEN. Without it every webhook is refused."
        findings.append(note(_WHAT, "is set, and there is no Twilio account to verify webhooks with", advice))
    return [*findings, *await _reached(visit, settings.public_url)]


async def _reached(visit: Visit, url: str) -> list[Finding]:
    try:
        response = await visit.get(url + "/health")
    except httpx2.HTTPError as error:
        advice = "Check its DNS name, its certificate, the firewall and the proxy. Some networks cannot see themselves."
        return [failed(_WHAT, f"{url} cannot be reached: {why(error)}", advice)]
    try:
        ours = msgspec.json.decode(response.content, type=_Health).status == "ok"
    except msgspec.MsgspecError:
        ours = False
    if ours and response.status_code == HTTPStatus.OK:
        return [ok(_WHAT, f"{url} reaches a gateway"), await _websocket(url)]
    if not visit.running:
        text = f"{url} answers {response.status_code}; the gateway is not running here"
        return [note(_WHAT, text, "Start it and check again.")]
    advice = "Let the proxy pass everything on to the gateway's port, unchanged."
    return [failed(_WHAT, f"{url} answers {response.status_code} and is not our gateway", advice)]


async def _websocket(url: str) -> Finding:
    """Proxies have to be told to pass websockets."""
    advice = "Let the proxy pass the Upgrade and Connection headers on (nginx: proxy_http_version 1.1)."
    try:
        async with asyncio.timeout(DEADLINE), connect("ws" + url.removeprefix("http") + "/client"):
            return ok("websockets", "pass through")
    except (WebSocketException, OSError, TimeoutError, ValueError) as error:
        return failed("websockets", f"do not pass through PUBLIC_URL ({type(error).__name__})", advice)


def check_clock(visit: Visit) -> list[Finding]:
    """What others told of their clocks in passing."""
    if not visit.skews:
        return []
    skew = median(visit.skews)
    text = f"{abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    advice = "Let this machine keep time by NTP (timedatectl set-ntp true)."
    if abs(skew) > _BAD_SKEW:
        return [failed("clock", text, advice)]
    if abs(skew) > _SKEW:
        return [warning("clock", text, advice)]
    return [ok("clock", "agrees with others'")]
