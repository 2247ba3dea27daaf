"""Vendors: does each accept the key it will be shown when a call comes. One small request each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import httpx2
import msgspec
from pydantic import SecretStr

from server.check.findings import Finding, Visit, failed, note, ok, warning, why
from server.engines import Engines
from server.settings import Settings

_AT_ONCE: Final = 8
_OPENAI: Final = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class _Vendor:
    """Something that answers 2xx to a good key and 401 to a bad one, and costs nothing."""

    name: str
    setting: str
    key: Callable[[Settings], SecretStr | None]
    url: Callable[[Settings], str]
    headers: Callable[[str], Mapping[str, str]]


def _bearer(key: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


_VENDORS: Final = (
    _Vendor(
        "deepgram",
        "DEEPGRAM_API_KEY",
        lambda settings: settings.deepgram_api_key,
        lambda settings: settings.deepgram_base_url + "/v1/projects",
        lambda key: {"Authorization": f"Token {key}"},
    ),
    _Vendor(
        "elevenlabs",
        "ELEVENLABS_API_KEY",
        lambda settings: settings.elevenlabs_api_key,
        lambda settings: settings.elevenlabs_base_url + "/v1/user",
        lambda key: {"xi-api-key": key},
    ),
    _Vendor(
        "openai",
        "OPENAI_API_KEY",
        lambda settings: settings.openai_api_key,
        lambda settings: settings.openai_base_url + "/models",
        _bearer,
    ),
    _Vendor(
        "cartesia",
        "CARTESIA_API_KEY",
        lambda settings: settings.cartesia_api_key,
        lambda settings: settings.cartesia_base_url + "/voices?limit=1",
        lambda key: {"X-API-Key": key, "Cartesia-Version": "2025-04-16"},
    ),
    _Vendor(
        "gladia",
        "GLADIA_API_KEY",
        lambda settings: settings.gladia_api_key,
        lambda settings: settings.gladia_base_url + "/v2/pre-recorded?limit=1",
        lambda key: {"x-gladia-key": key},
    ),
    _Vendor(
        "mistral",
        "MISTRAL_API_KEY",
        lambda settings: settings.mistral_api_key,
        lambda settings: settings.mistral_base_url + "/models",
        _bearer,
    ),
)


@dataclass(frozen=True, slots=True)
class _Question:
    """One key for one vendor. `where` names the place of the key."""

    vendor: _Vendor
    key: str
    what: str
    where: str


async def check_vendors(visit: Visit) -> list[Finding]:
    """Every key that is set, the server's and those of organisations."""
    questions = _questions(visit)
    if not questions:
        return [note("vendors", "no vendor key is set: calls run on the built-in engines, without a language model")]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def asked(question: _Question) -> Finding:
        async with gate:
            return await _ask(visit, question)

    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(asked(question)) for question in questions]
    return [*(task.result() for task in asking), *_unserved(questions)]


def _questions(visit: Visit) -> list[_Question]:
    settings = visit.settings
    found: list[_Question] = []
    for vendor in _VENDORS:
        key = vendor.key(settings)
        own_server = vendor.name == "openai" and settings.openai_base_url != _OPENAI
        if key is not None or own_server:
            text = "" if key is None else key.get_secret_value()
            where = vendor.setting if key is not None else "OPENAI_BASE_URL"
            found.append(_Question(vendor, text, vendor.name, where))
    for one in visit.organisations.all():
        for vendor in _VENDORS:
            if vendor.name in one.credentials:
                where = f"credentials.{vendor.name} of {one.org_id}"
                found.append(_Question(vendor, one.credentials[vendor.name], f"{vendor.name} ({one.org_id})", where))
    return found


def _unserved(questions: list[_Question]) -> list[Finding]:
    idle = {question.vendor.name for question in questions} - Engines.served
    text = "this build has no engine for it: its key is of no use"
    return [note(name, text) for name in sorted(idle)]


async def _ask(visit: Visit, question: _Question) -> Finding:
    what, where = question.what, question.where
    begun = visit.clock.now()
    try:
        response = await visit.get(question.vendor.url(visit.settings), dict(question.vendor.headers(question.key)))
    except (httpx2.HTTPError, UnicodeError) as error:
        if isinstance(error, UnicodeError):
            return failed(what, "the key holds characters that no key has", f"Copy {where} again.")
        advice = f"Check network and proxy of this machine, and the _BASE_URL of {question.vendor.name}."
        return failed(what, f"cannot be reached: {why(error)}", advice)
    status = response.status_code
    if response.is_success or _lacks_a_right(response):
        return ok(what, f"accepts the key ({(visit.clock.now() - begun) * 1000:.0f} ms)" if question.key else "answers")
    if status == HTTPStatus.UNAUTHORIZED:
        return failed(what, "refuses the key", f"Put a valid key into {where}.")
    if status == HTTPStatus.FORBIDDEN:
        return warning(what, "knows the key and does not let it ask about itself", f"See what rights {where} has.")
    if status in (HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.TOO_MANY_REQUESTS):
        return warning(
            what, f"takes the key and refuses work ({status})", "See the vendor's page on credit and limits."
        )
    return warning(what, f"answers {status}", "The vendor may have an outage, or its _BASE_URL is wrong.")


class _Detail(msgspec.Struct):
    status: str = ""


class _Refusal(msgspec.Struct):
    detail: _Detail


def _lacks_a_right(response: httpx2.Response) -> bool:
    """ElevenLabs says 401 also of a good key that was made for less than what is asked."""
    if response.status_code != HTTPStatus.UNAUTHORIZED:
        return False
    try:
        return msgspec.json.decode(response.content, type=_Refusal).detail.status == "missing_permissions"
    except msgspec.MsgspecError:
        return False
