"""`voice-gateway check`: all checks at once, told in plain words or as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import httpx2
import structlog

from pipelines.clock import LoopClock
from server.auth import Keys
from server.check.carrier import check_carrier
from server.check.findings import DEADLINE, Finding, Level, Visit, failed
from server.check.machine import check_machine, check_port
from server.check.public import check_clock, check_public
from server.check.shared import check_redis
from server.check.vendors import check_vendors
from server.keys import SettingsError
from server.logs import configure_logging
from server.organisations.sources import OrganisationSources
from server.settings import Settings

log = structlog.get_logger(__name__)

PATIENCE: Final = 12.0
"""Seconds for one kind of check, whatever it asks."""

Check = Callable[[Visit], Awaitable[list[Finding]]]


def run_check_command(options: argparse.Namespace, settings: Callable[[], Settings]) -> int:
    """Carry it out; the answer is the exit code: 0 all is well, 1 something failed, 2 the settings cannot be read."""
    configure_logging("critical", "console")
    try:
        chosen = settings()
        findings = asyncio.run(examine(chosen))
    except SettingsError as error:
        if options.json:
            sys.stdout.write(json.dumps({"ok": False, "error": str(error), "findings": []}, ensure_ascii=False) + "\n")
        else:
            sys.stderr.write(f"voice-gateway: {error}\n")
        return 2
    passed = all(one.level is not Level.FAILED for one in findings)
    sys.stdout.write(as_json(findings, passed=passed) if options.json else as_text(findings, passed=passed))
    return 0 if passed else 1


async def examine(settings: Settings) -> list[Finding]:
    """Run every check. Raises SettingsError when there is nothing to check with."""
    keys = Keys([(one.organisation, one.key.get_secret_value()) for one in settings.organisation_keys])
    organisations = OrganisationSources(settings, keys).organisations
    async with httpx2.AsyncClient(timeout=DEADLINE, follow_redirects=False) as http:
        visit = Visit(settings, organisations, http, LoopClock())
        first = await _patiently("port", check_port, visit)
        checks: dict[str, Check] = {
            "machine": check_machine,
            "Redis": check_redis,
            "vendors": check_vendors,
            "Twilio": check_carrier,
            "PUBLIC_URL": check_public,
        }
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(_patiently(name, check, visit)) for name, check in checks.items()]
        found = [finding for task in running for finding in task.result()]
        return [*first, *found, *check_clock(visit)]


async def _patiently(name: str, check: Check, visit: Visit) -> list[Finding]:
    try:
        async with asyncio.timeout(PATIENCE):
            return await check(visit)
    except TimeoutError:
        advice = "Something on the way does not answer; check the network."
        return [failed(name, f"not done after {PATIENCE:g} s", advice)]
    except Exception as error:
        # The root of a check: what it does not expect must not hide what the others find.
        log.exception("check_failed", check=name)
        advice = "That is a fault of the check; please report it."
        return [failed(name, f"the check itself failed ({type(error).__name__})", advice)]


def as_text(findings: list[Finding], *, passed: bool) -> str:
    """A line for each finding, its advice beneath."""
    width = max((len(one.what) for one in findings), default=0)
    lines: list[str] = []
    for one in findings:
        lines.append(f"{one.level.value:<8}  {one.what:<{width}}  {one.text}")
        if one.advice:
            lines.append(f"{'':<8}  {'':<{width}}  → {one.advice}")
    counted = {level: sum(one.level is level for one in findings) for level in Level}
    bad, doubtful = counted[Level.FAILED], counted[Level.WARNING]
    summary = "all is well" if passed and not doubtful else f"{bad} failed, {doubtful} warnings"
    return "\n".join([*lines, "", summary, ""])


def as_json(findings: list[Finding], *, passed: bool) -> str:
    """The same for programs."""
    rows = [{"what": one.what, "level": one.level.value, "text": one.text, "advice": one.advice} for one in findings]
    return json.dumps({"ok": passed, "findings": rows}, ensure_ascii=False, indent=2) + "\n"
