"""A telephone in software: rings a gateway the way Twilio does, speaks, listens, presses keys, hangs up.

Everything is real but the wire to the caller: the webhook over HTTP, the media stream over a websocket, 20 ms of µ-law
every 20 ms, and the carrier's play-out buffer, so that what is recorded as heard is what a person would have heard, and
when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType

from demo.carrier import CarrierLine
from demo.dialling import Answer, Dial, Outcome, place_call
from demo.telephone import FRAME_BYTES, RATE, SILENCE, Played, first_audible, last_audible, stereo_wav

_PAUSE_S = 0.3
"""Silence within speech that does not count as its end."""


class CallOver(Exception):
    """The call ended while something was still expected of it."""


class Happening(StrEnum):
    """What a caller notices."""

    ANSWERED = "answered"
    SPEECH_BEGAN = "speech_began"
    SPEECH_ENDED = "speech_ended"
    BOT_AUDIBLE = "bot_audible"
    BOT_QUIET = "bot_quiet"
    CLEARED = "cleared"
    PRESSED = "pressed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Moment:
    """Something happened; `at` is the loop's time, exact to a sample for sounds."""

    what: Happening
    at: float
    detail: str = ""


class SoftwareCaller:
    """One telephone for one call. Use as `async with SoftwareCaller(Dial(…)) as caller: await caller.ring()`.

    `max_lead_ms` is how far ahead of real time the gateway may send before that counts as a violation. All waits raise
    TimeoutError after `timeout_s`, CallOver when the call ends first, or ProtocolViolation; leaving raises that too.
    """

    def __init__(self, dial: Dial, max_lead_ms: float | None = None) -> None:
        self.dial = dial
        self.moments: list[Moment] = []
        self.said = bytearray()
        """What the caller's microphone sent since the line opened, silence included (8 kHz µ-law)."""
        self._loop = asyncio.get_running_loop()
        self._line = CarrierLine(dial, self, max_lead_ms)
        self._microphone: asyncio.Task[None] | None = None
        self._speech = bytearray()
        self._talking = False
        self._said_audible = -1
        self._heard_audible = -1
        self._bot_on = False
        self._beat = asyncio.Event()

    async def __aenter__(self) -> SoftwareCaller:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.hang_up()
        if error is None and self._line.fault is not None:
            raise self._line.fault

    # --- what a person can do ---

    async def ring(self) -> Answer:
        """Call; when the gateway takes the call, the line is open both ways on return. Raises DialFailed."""
        answer = await place_call(self.dial)
        if answer.outcome is Outcome.CONNECTED:
            await self.pick_up(answer)
        return answer

    async def pick_up(self, answer: Answer) -> None:
        """Open the media stream of a call that the gateway placed. Raises DialFailed."""
        await self._line.open(answer)
        self._note(Happening.ANSWERED, self._line.play.began_at)
        self._microphone = asyncio.create_task(self._speak())

    def say(self, mulaw: bytes) -> None:
        """Speak 8 kHz µ-law after what is being said already."""
        self._speech += mulaw

    def fall_silent(self) -> None:
        """Say no more of what is queued."""
        self._speech.clear()

    def press(self, digit: str) -> None:
        """Press a key: 0-9, *, #, A-D."""
        self._line.send_key(digit)
        self._note(Happening.PRESSED, self._loop.time(), digit)

    async def hang_up(self) -> None:
        """End the call properly: `stop`, then close. Idempotent, takes at most 2 s."""
        await self._line.hang_up()
        if self._microphone is not None:
            self._microphone.cancel()
            (failure,) = await asyncio.gather(self._microphone, return_exceptions=True)
            if isinstance(failure, Exception):
                raise failure

    def vanish(self) -> None:
        """Lose the connection without a word."""
        self._line.vanish()

    # --- what a person notices ---

    @property
    def heard(self) -> bytes:
        """All that was heard since the line opened, silence included (8 kHz µ-law)."""
        return bytes(self._line.play.heard)

    @property
    def heard_ms(self) -> float:
        """How much audio of the gateway was played."""
        return self._line.play.played_bytes * 1000 / RATE

    @property
    def marks(self) -> list[str]:
        """Names of the marks echoed to the gateway, in order."""
        return self._line.marks

    @property
    def max_lead_seen_ms(self) -> float:
        """The furthest the gateway was ever ahead of real time."""
        return self._line.max_lead_seen_ms

    @property
    def is_over(self) -> bool:
        """Whether the line is closed."""
        return self._line.ended.is_set()

    def is_bot_audible(self) -> bool:
        """Whether the bot is speaking now; short pauses within its speech count as speaking."""
        return self._bot_on

    def response_times(self) -> list[float]:
        """For each thing said and answered: seconds from the end of the caller's speech to the first audible reply."""
        times: list[float] = []
        ended: float | None = None
        for moment in sorted(self.moments, key=lambda moment: moment.at):
            if moment.what is Happening.SPEECH_ENDED:
                ended = moment.at
            elif moment.what is Happening.BOT_AUDIBLE and ended is not None:
                times.append(moment.at - ended)
                ended = None
        return times

    def stereo_wav(self) -> bytes:
        """The call as a WAV file: caller on the left, bot on the right."""
        return stereo_wav(bytes(self.said), self.heard)

    async def wait_bot_audible(self, timeout_s: float = 10.0) -> None:
        """Until the bot is speaking."""
        await self._until(self.is_bot_audible, timeout_s)

    async def wait_quiet(self, ms: float, timeout_s: float = 30.0) -> None:
        """Until nothing was heard for that long and nothing is waiting to be played."""
        await self._until(lambda: self._quiet_ms() >= ms, timeout_s)

    async def wait_said(self, timeout_s: float = 60.0) -> None:
        """Until everything was said."""
        await self._until(lambda: not self._speech and not self._talking, timeout_s)

    async def wait_bot_done(self, timeout_s: float = 30.0, quiet_ms: float = 700.0) -> None:
        """Until the bot answered what was said last (or greeted, when nothing was) and has finished."""
        await self.wait_said(timeout_s)
        spoke = self._said_audible
        await self._until(lambda: self._heard_audible > spoke and self._quiet_ms() >= quiet_ms, timeout_s)

    async def wait_ended(self, timeout_s: float = 10.0) -> None:
        """Until the line is closed, by whomever."""
        async with asyncio.timeout(timeout_s):
            await self._line.ended.wait()
        if self._line.fault is not None:
            raise self._line.fault

    # --- the line tells ---

    def on_played(self, played: Played) -> None:
        """Time has passed on the line."""
        play = self._line.play
        if played.first_audible is not None and played.last_audible is not None:
            if not self._bot_on:
                self._bot_on = True
                self._note(Happening.BOT_AUDIBLE, play.time_at(played.first_audible))
            self._heard_audible = played.last_audible
        elif self._quiet_ms() >= _PAUSE_S * 1000:
            self._bot_stopped()

    def on_cleared(self, dropped_ms: float) -> None:
        """The gateway took back what was waiting to be played."""
        self._note(Happening.CLEARED, self._loop.time(), f"{dropped_ms:.0f} ms")
        self._bot_stopped()

    def on_ended(self, reason: str) -> None:
        """The line is closed."""
        self._note(Happening.ENDED, self._loop.time(), reason)
        self._wake()

    # --- inside ---

    async def _speak(self) -> None:
        """Send a frame whenever one is full, on an absolute schedule."""
        while not self._line.ended.is_set():
            due = self._line.play.time_at(len(self.said) + FRAME_BYTES)
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            self._line.send_frame(self._next_frame())
            self._line.advance()
            self._wake()

    def _next_frame(self) -> bytes:
        at = len(self.said)
        time_at = self._line.play.time_at
        speech = bytes(self._speech[:FRAME_BYTES])
        del self._speech[:FRAME_BYTES]
        first, last = first_audible(speech), last_audible(speech)
        if first is not None and last is not None:
            if not self._talking:
                self._talking = True
                self._note(Happening.SPEECH_BEGAN, time_at(at + first))
            self._said_audible = at + last
        if self._talking and not self._speech:
            self._talking = False
            self._note(Happening.SPEECH_ENDED, time_at(self._said_audible + 1))
        frame = speech.ljust(FRAME_BYTES, bytes([SILENCE]))
        self.said += frame
        return frame

    def _bot_stopped(self) -> None:
        if self._bot_on:
            self._bot_on = False
            self._note(Happening.BOT_QUIET, self._line.play.time_at(self._heard_audible + 1))

    def _quiet_ms(self) -> float:
        play = self._line.play
        return 0.0 if play.buffered_ms else (len(play.heard) - self._heard_audible - 1) * 1000 / RATE

    async def _until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            while not holds():
                if self._line.fault is not None:
                    raise self._line.fault
                if self.is_over:
                    raise CallOver(self.moments[-1].detail)
                await self._beat.wait()

    def _wake(self) -> None:
        self._beat.set()
        self._beat = asyncio.Event()

    def _note(self, what: Happening, at: float, detail: str = "") -> None:
        self.moments.append(Moment(what, at, detail))
