"""This machine: the port, the data directory, disk space, models, espeak-ng, and the keys there are."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import Final

import httpx2
import msgspec

from providers.errors import ProviderError
from server.check.findings import Finding, Visit, failed, note, ok, warning
from server.engines import check_models
from server.settings import Settings

_LOW: Final = 200 * 1024 * 1024
_MIN: Final = 10 * 1024 * 1024
_ESPEAK_SECONDS: Final = 3.0


class _Ready(msgspec.Struct):
    status: str


def local_origin(settings: Settings) -> str:
    """Where the gateway is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


async def check_port(visit: Visit) -> list[Finding]:
    """Free, ours, or somebody else's."""
    settings = visit.settings
    what = f"port {settings.port}"
    if settings.port == 0:
        return [note("port", "PORT is 0: the system chooses one at each start", "Set PORT to be found by others.")]
    try:
        response = await visit.http.get(local_origin(settings) + "/ready", timeout=2.0)
        status = msgspec.json.decode(response.content, type=_Ready).status
    except httpx2.HTTPError:
        return [_free(settings, what)]
    except msgspec.MsgspecError:
        status = ""
    if status not in ("ready", "not ready"):
        advice = "Stop that program, or set PORT to another number."
        return [failed(what, "another program answers there", advice)]
    visit.running = True
    if status == "ready":
        return [ok(what, "our gateway is running and ready for calls")]
    advice = "Its log says what it waits for; usually it is Redis, or it is stopping."
    return [warning(what, "our gateway is running and not ready for calls", advice)]


def _free(settings: Settings, what: str) -> Finding:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
    except OSError as error:
        advice = "Stop the program that has it, or set HOST and PORT to something else."
        return failed(what, f"cannot be had on {settings.host} ({error.strerror or error})", advice)
    return ok(what, "free: the gateway is not running and can start")


async def check_machine(visit: Visit) -> list[Finding]:
    """Everything that needs no network."""
    settings = visit.settings
    return [
        *_keys(visit),
        *await asyncio.to_thread(_data_dir, settings.data_dir),
        _models(),
        await _espeak(),
    ]


def _keys(visit: Visit) -> list[Finding]:
    settings, found = visit.settings, len(visit.organisations.keys)
    findings: list[Finding] = []
    if found:
        findings.append(ok("API keys", f"{found} known from API_KEYS and API_KEYS_FILE"))
    elif settings.api_keys_file is not None:
        advice = "Make one: voice-gateway keys make"
        findings.append(warning("API keys", "API_KEYS_FILE holds none: no agent can connect", advice))
    elif (settings.data_dir / "api_key").exists():
        findings.append(ok("API keys", f"one, made by the gateway: {settings.data_dir / 'api_key'}"))
    else:
        findings.append(ok("API keys", "none yet: one is made and printed at the first start"))
    path = settings.api_keys_file
    if path is not None and path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        findings.append(warning("API_KEYS_FILE", "others on this machine may read it", f"Run: chmod 600 {path}"))
    return findings


def _data_dir(folder: Path) -> list[Finding]:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    try:
        if there == folder.absolute():
            with tempfile.TemporaryFile(dir=folder):
                pass
        elif not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        free = shutil.disk_usage(there).free
    except OSError as error:
        advice = "Let the gateway's user write there, or set DATA_DIR to another folder."
        return [failed("DATA_DIR", f"{folder} cannot be written ({error.strerror or type(error).__name__})", advice)]
    findings = [ok("DATA_DIR", f"{folder} can be written")]
    room = f"{free / 1024**3:.1f} GB free"
    advice = "Make room, or set DATA_DIR to a folder on another disk."
    if free < _MIN:
        findings.append(failed("disk", room, advice))
    elif free < _LOW:
        findings.append(warning("disk", room, advice))
    else:
        findings.append(ok("disk", room))
    return findings


def _models() -> Finding:
    try:
        check_models()
    except ProviderError as error:
        return failed("models", str(error), "The gateway does not start without them.")
    return ok("models", "voice detection and end of turn are there")


async def _espeak() -> Finding:
    what, advice = "espeak-ng", "Install it (apt-get install espeak-ng); only the built-in voice needs it."
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec("espeak-ng", "--version", stdout=pipe, stderr=pipe)
    except OSError:
        return warning(what, "is not installed", advice)
    try:
        async with asyncio.timeout(_ESPEAK_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return warning(what, "does not answer", advice)
    if process.returncode != 0:
        return warning(what, "does not run", advice)
    version = re.search(r"\d+\.[\d.]+", output.decode(errors="replace"))
    return ok(what, version.group() if version is not None else "runs")
