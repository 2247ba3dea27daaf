"""Telephone keys of one call, both ways: those that the caller presses and those that the agent wants pressed."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from pipelines.audio.dtmf import check_keys
from pipelines.events import CallEvents
from pipelines.speaking.keys import Keys
from pipelines.speaking.mouth import Mouth
from providers.base import AudioFormat
from wire.commands import CallDtmf
from wire.events import CallDtmfReceived, CallError

log = structlog.get_logger(__name__)

REMEMBERED = 1000
"""Of what the caller pressed, so many last keys are told with each new one."""


class Keypad:
    """`line` is None where nobody could hear the tones: on media that are no telephone."""

    def __init__(
        self, mouth: Mouth, events: CallEvents, line: AudioFormat | None, on_press: Callable[[], None]
    ) -> None:
        """`on_press` is told before the tones of the agent's keys are queued."""
        self._mouth = mouth
        self._events = events
        self._line = line
        self._on_press = on_press
        self._started = False
        self._received = ""

    def start(self) -> None:
        """The call has begun: what was pressed earlier is told now."""
        self._started = True
        early, self._received = self._received, ""
        for digit in early:
            self.pressed(digit)

    def pressed(self, digit: str) -> None:
        """The caller pressed a key."""
        self._received = (self._received + digit)[-REMEMBERED:]
        if self._started:
            self._events.publish(CallDtmfReceived(digit=digit, digits=self._received))

    def press(self, command: CallDtmf) -> None:
        """Carry out `call.dtmf`: its tones come after what is being said and what waits to be."""
        if self._line is None:
            log.info("dtmf_not_supported")
            return
        try:
            keys = Keys(check_keys(command.digits), self._line)
        except ValueError as error:
            self._events.publish(CallError(code="BAD_REQUEST", error=str(error)))
            return
        self._on_press()
        if not self._mouth.enqueue(keys):
            self._events.publish(CallError(code="RATE_LIMITED", error="digits: too much waits to be said and played"))
