"""What was said in threads: a page that comes back finds its conversation again, and nobody else does.

Documented for clients: docs/browser.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from server.store.base import AgentKey
from wire.events import CallMessage

KEPT_SECONDS: Final = 24 * 3600.0
"""A thread in which nothing is said for so long is forgotten."""
MAX_ENTRIES: Final = 50
"""The last entries of a thread that are kept."""
MAX_BYTES: Final = 64 * 1024 * 1024
"""All threads together; those that were quiet for longest go first."""


@dataclass(frozen=True, slots=True)
class ThreadKey:
    """Whose thread that is. `identity` is what the token's maker sealed in of the user, "" for nobody in particular:
    the id alone opens a thread only to those it was given to."""

    agent: AgentKey
    thread_id: str
    identity: str


@dataclass(frozen=True, slots=True)
class _Thread:
    content: bytes
    kept_at: float


_decoder = msgspec.json.Decoder(list[CallMessage])


class Threads:
    """The threads of this process, in memory. `now` gives monotonic seconds."""

    def __init__(self, now: Callable[[], float], max_bytes: int = MAX_BYTES) -> None:
        self._now = now
        self._max_bytes = max_bytes
        self._threads: OrderedDict[ThreadKey, _Thread] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._threads)

    def find(self, key: ThreadKey) -> list[CallMessage]:
        """What was said, oldest first; nothing for a thread that is not there."""
        thread = self._threads.get(key)
        if thread is None or thread.kept_at + KEPT_SECONDS <= self._now():
            return []
        return _decoder.decode(thread.content)

    def keep(self, key: ThreadKey, said: list[CallMessage]) -> None:
        """The thread is now this."""
        now = self._now()
        self._drop(key)
        if said:
            content = msgspec.json.encode(said[-MAX_ENTRIES:])
            self._threads[key] = _Thread(content, now)
            self._bytes += len(content)
        while self._threads:
            oldest, thread = next(iter(self._threads.items()))
            if thread.kept_at + KEPT_SECONDS > now and self._bytes <= self._max_bytes:
                break
            self._drop(oldest)

    def _drop(self, key: ThreadKey) -> None:
        thread = self._threads.pop(key, None)
        if thread is not None:
            self._bytes -= len(thread.content)
