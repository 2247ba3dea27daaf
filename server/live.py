"""Who listens to calls while they last (docs/live.md): the listeners of each call, and what waits for each of them.

A call knows of one audience at most; the audience knows its listeners. Nothing here waits for anybody: a listener that
is slow loses the oldest of what waits for it, and the call never notices.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from pipelines.audio.levels import FLOOR_DB, energy_db
from pipelines.soundtrack import Soundtrack

log = structlog.get_logger(__name__)

MAX_LISTENERS: Final = 20
"""Of one call."""
QUEUED_FRAMES: Final = 40
"""Frames that may wait for a listener: two seconds."""
KEEP_ALIVE_AFTER: Final = 100
"""Frames of silence, one after the other, that are followed by a keep-alive: five seconds."""
KEEP_ALIVE: Final = b"\0\0"
END: Final = b""
"""The frame that says that no more comes."""


class LiveListeningCall(Protocol):
    """A call, as far as listening to it goes."""

    soundtrack: Soundtrack

    @property
    def org_id(self) -> str:
        """Whose call."""
        ...


class NotLive(Exception):
    """No call of that id may be listened to: it is unknown, over, or not `media.live`."""


class NotYours(Exception):
    """The call is somebody else's."""


class TooManyListeners(Exception):
    """Everybody that may listen does."""


class Listener:
    """One who listens, with a key that must stay good. `frames` wait to be sent; `next` awaits them."""

    def __init__(self, call_id: str, org_id: str, key: str, rate: int) -> None:
        self.call_id = call_id
        self.org_id = org_id
        self.key = key
        self.rate = rate
        """Samples a second."""
        self.revoked = False
        """True when the listener had to leave before the call was over."""
        self._frames: deque[bytes] = deque(maxlen=QUEUED_FRAMES)
        self._ready = asyncio.Event()
        self._over = False

    def put(self, frame: bytes) -> None:
        """Queue a frame; the oldest one goes when too many wait."""
        self._frames.append(frame)
        self._ready.set()

    def end(self, *, revoked: bool = False) -> None:
        """No more comes; what waits is still sent, unless the listener had no right to it."""
        self._over, self.revoked = True, revoked
        if revoked:
            self._frames.clear()
        self._ready.set()

    async def next(self) -> bytes | None:
        """The next frame; None at the end."""
        while not self._frames:
            if self._over:
                return None
            self._ready.clear()
            await self._ready.wait()
        return self._frames.popleft()


class _Audience:
    """All who listen to one call."""

    def __init__(self, soundtrack: Soundtrack) -> None:
        self.soundtrack = soundtrack
        self.listeners: set[Listener] = set()
        self._silent = 0

    def take(self, mixed: bytes) -> None:
        """The next 50 ms."""
        self._silent = self._silent + 1 if energy_db(mixed) <= FLOOR_DB else 0
        for listener in self.listeners:
            listener.put(mixed)
        if self._silent == KEEP_ALIVE_AFTER:
            self._silent = 0
            for listener in self.listeners:
                listener.put(KEEP_ALIVE)

    def over(self) -> None:
        """No more comes."""
        for listener in self.listeners:
            listener.end()


class LiveListening:
    """Everybody who listens to calls of this process."""

    def __init__(self, find: Callable[[str], LiveListeningCall | None], org_of: Callable[[str], str | None]) -> None:
        """`find` gives the live call of an id, `org_of` the organisation that a key opens."""
        self._find = find
        self._org_of = org_of
        self._audiences: dict[str, _Audience] = {}

    def __len__(self) -> int:
        return sum(len(audience.listeners) for audience in self._audiences.values())

    def check(self, call_id: str, org_id: str) -> Soundtrack:
        """What somebody of that organisation would listen to. Raises NotYours, NotLive."""
        call = self._find(call_id)
        if call is None:
            raise NotLive
        if call.org_id != org_id:
            raise NotYours
        if not call.soundtrack.live:
            raise NotLive
        return call.soundtrack

    def join(self, call_id: str, org_id: str, key: str) -> Listener:
        """Listen from now on, until `leave`. Raises NotYours, NotLive, TooManyListeners."""
        soundtrack = self.check(call_id, org_id)
        audience = self._audiences.get(call_id)
        if audience is None or audience.soundtrack is not soundtrack or not soundtrack.is_heard_by(audience):
            # The first to come, or listening was forbidden and allowed again.
            audience = self._audiences[call_id] = _Audience(soundtrack)
            soundtrack.attend(audience)
        if len(audience.listeners) >= MAX_LISTENERS:
            raise TooManyListeners
        listener = Listener(call_id, org_id, key, soundtrack.audio.rate)
        audience.listeners.add(listener)
        log.info("listener_joined", call_id=call_id, org=org_id, listeners=len(audience.listeners))
        return listener

    def leave(self, listener: Listener) -> None:
        """Listen no more. Idempotent."""
        audience = self._audiences.get(listener.call_id)
        if audience is None or listener not in audience.listeners:
            return
        audience.listeners.remove(listener)
        log.info("listener_left", call_id=listener.call_id, org=listener.org_id, listeners=len(audience.listeners))
        if not audience.listeners:
            del self._audiences[listener.call_id]
            if audience.soundtrack.is_heard_by(audience):
                audience.soundtrack.attend(None)

    def recheck(self) -> None:
        """Keys were added or revoked: whoever listens with one that no longer opens their organisation must go."""
        for audience in self._audiences.values():
            for listener in audience.listeners:
                if self._org_of(listener.key) != listener.org_id:
                    listener.end(revoked=True)
