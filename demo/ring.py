"""`voice-gateway call`: ring any agent from the terminal, with typed lines, WAV files, or as a conversation."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx2

from demo.caller import CallOver, SoftwareCaller
from demo.carrier import ProtocolViolation
from demo.dialling import Answer, Dial, DialFailed, Outcome
from demo.voice import NoVoice, speak
from pipelines.audio.wav import read_wav
from providers.base import MULAW_8K


@dataclass(frozen=True, slots=True)
class CallPlan:
    """Whom to ring and what to say. Without lines and files the lines are typed."""

    gateway: str
    to: str
    caller: str
    lines: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    record: Path | None = None
    auth_token: str | None = None
    public_url: str | None = None


async def ring(plan: CallPlan) -> int:
    """Make the call; the exit code: 0 when it was answered and went as the protocol says."""
    dial = Dial(plan.gateway, plan.to, plan.caller, plan.auth_token, plan.public_url)
    try:
        said = await _prepared(plan)
        async with SoftwareCaller(dial) as caller:
            answer = await caller.ring()
            if answer.outcome is not Outcome.CONNECTED:
                _tell(_not_answered(answer))
                return 1
            _tell(f"answered; call id {dial.call_sid}")
            await _speak(said, caller)
            _report(plan, caller)
    except (DialFailed, ProtocolViolation, NoVoice, ValueError, httpx2.HTTPError, OSError) as error:
        _tell(f"the call failed: {error or type(error).__name__}")
        return 1
    return 0


async def _prepared(plan: CallPlan) -> list[bytes]:
    """What is going to be said, made before anybody is disturbed. Raises ValueError, OSError, NoVoice."""
    files = [await asyncio.to_thread(path.read_bytes) for path in plan.files]
    return [read_wav(sound, MULAW_8K) for sound in files] + [await speak(line) for line in plan.lines]


def _not_answered(answer: Answer) -> str:
    if answer.outcome is Outcome.SAID:
        return f"not answered; the gateway said: {answer.detail}"
    return f"not answered ({answer.detail}): no agent takes that number now, or the gateway is full; its log says which"


async def _speak(said: list[bytes], caller: SoftwareCaller) -> None:
    try:
        if not said:
            await _converse(caller)
            return
        for audio in said:
            await _patiently(caller)
            caller.say(audio)
        await _patiently(caller)
    except CallOver as over:
        _tell(f"the other side hung up ({over})")


async def _converse(caller: SoftwareCaller) -> None:
    """Speak what is typed, until an empty line or the end of the call. Lines from a pipe wait for their answers."""
    piped = not sys.stdin.isatty()
    if not piped:
        _tell("type what to say; an empty line hangs up")
    loop = asyncio.get_running_loop()
    while not caller.is_over:
        if piped:
            await _patiently(caller)
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line.strip():
            return
        caller.say(await speak(line.strip()))


async def _patiently(caller: SoftwareCaller) -> None:
    """Wait for the bot to answer; an agent that says nothing is no reason to fail."""
    try:
        await caller.wait_bot_done(timeout_s=15)
    except TimeoutError:
        _tell("no answer within 15 s")


def _report(plan: CallPlan, caller: SoftwareCaller) -> None:
    for number, seconds in enumerate(caller.response_times(), start=1):
        _tell(f"answer {number}: heard {seconds * 1000:.0f} ms after the caller stopped")
    if plan.record is not None:
        plan.record.parent.mkdir(parents=True, exist_ok=True)
        plan.record.write_bytes(caller.stereo_wav())
        _tell(f"recorded: {plan.record}")


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
