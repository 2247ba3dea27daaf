"""One message of the bot on its way from text to ear: what it says, how far it is, and what the caller heard of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from enum import Enum, auto

from pipelines.speaking.sentences import Sentences
from pipelines.speaking.speakable import speakable
from pipelines.speaking.words import Words
from pipelines.turn_times import Milestones


class Origin(Enum):
    """Who wanted this said."""

    CLIENT = auto()
    SERVER = auto()
    GREETING = auto()


class Stage(Enum):
    """How far an utterance is. `PLAYING` means that its first audio has left."""

    QUEUED = auto()
    SYNTHESISING = auto()
    PLAYING = auto()
    OVER = auto()


FIRST_PATIENCE = 1.0
"""Seconds that the caller waits for the first sentence of a text that is being written; then its words have to do."""
LATER_PATIENCE = 2.5
"""The same for later sentences: speech of earlier ones may still be heard, and whole sentences sound better."""
ALL_MS = 2**31
"""Later than any word."""

_NEXT = {
    Stage.QUEUED: {Stage.SYNTHESISING, Stage.OVER},
    Stage.SYNTHESISING: {Stage.PLAYING, Stage.OVER},
    Stage.PLAYING: {Stage.OVER},
    Stage.OVER: set[Stage](),
}


class Utterance:
    """A message of the bot. Text may still be coming in (`write`, `close`) while its beginning is already heard."""

    def __init__(self, message_id: str, in_reply_to: str, origin: Origin, *, remembered: bool) -> None:
        """`in_reply_to` empty: said regardless of turns. `remembered`: also part of what the server's model knows."""
        self.message_id = message_id
        self.in_reply_to = in_reply_to
        self.origin = origin
        self.remembered = remembered
        self.announced_text = ""
        """What `bot.speaking` shows: the whole text, or nothing for streams."""
        self.stage = Stage.QUEUED
        self.words = Words()
        self.text = ""
        """Everything written so far."""
        self.audio: deque[bytes] = deque()
        """Speech that may not be played yet, in the line's format."""
        self.synthesised = False
        """All speech that will ever come is here."""
        self.failed = False
        """The voice gave up: there is speech for the beginning of the text only."""
        self.task: asyncio.Task[None] | None = None
        self.queued_at = 0.0
        self.milestones = Milestones()
        self.sent = 0
        """Bytes of its audio that went to the line."""
        self.reached = False
        """The caller has begun to hear it."""
        self.spoken_ms = 0.0
        """How much speech there is so far."""
        self.from_ms = 0.0
        """Where the words of the present attempt to speak it begin."""
        self._sentences = Sentences()
        self._pieces: deque[str] = deque()
        self._spoken = False
        """There has been something to speak."""
        self._closed = False
        self._sequel: Utterance | None = None
        self._more = asyncio.Event()

    @property
    def is_reply(self) -> bool:
        """True when it answers a certain message of the user and is void when that is."""
        return bool(self.in_reply_to)

    def move(self, stage: Stage) -> None:
        """Go on to `stage`. Raises RuntimeError for a step that cannot be."""
        if stage not in _NEXT[self.stage]:
            raise RuntimeError(f"utterance cannot go from {self.stage.name} to {stage.name}")
        self.stage = stage

    def write(self, text: str) -> None:
        """More text; ignored after `close`, unless somebody takes over."""
        if self._sequel is not None:
            self._sequel.write(text)
        if self._closed or not text:
            return
        self.text += text
        self.words.extend(text)
        self._add(self._sentences.push(text))

    def close(self) -> None:
        """That was all. Idempotent."""
        if self._sequel is not None:
            self._sequel.close()
        if not self._closed:
            self._closed = True
            self._add(self._sentences.flush())
            self._more.set()

    @property
    def over(self) -> bool:
        """True once the caller will hear no more of it."""
        return self.stage is Stage.OVER

    @property
    def closed(self) -> bool:
        """True once no more text can come."""
        return self._closed

    def continue_in(self, sequel: Utterance) -> None:
        """This one was cut off while its text was still being written: what comes now goes to that one."""
        self._sequel = sequel

    async def pieces(self) -> AsyncIterator[str]:
        """What to speak, piece by piece, until the utterance is closed and spoken. A text that hardly grows is spoken
        by its words: the caller shall not take the silence for a dead line."""
        while True:
            while self._pieces:
                yield self._pieces.popleft()
            if self._closed:
                return
            self._more.clear()
            try:
                async with asyncio.timeout(LATER_PATIENCE if self._spoken else FIRST_PATIENCE):
                    await self._more.wait()
            except TimeoutError:
                self._add(self._sentences.hurry())

    def start_over(self) -> None:
        """The voice failed in the middle: what has no speech yet is to be spoken again, after what has."""
        self.from_ms = self.spoken_ms
        rest = self.text.lstrip().removeprefix(self.words.heard_text(ALL_MS))
        self._pieces.clear()
        self._sentences = Sentences()
        self._add(self._sentences.push(rest))
        if self._closed:
            self._add(self._sentences.flush())
            self._more.set()

    def _add(self, pieces: list[str]) -> None:
        for piece in pieces:
            spoken = speakable(piece)
            if spoken.strip():
                self._spoken = True
                self._pieces.append(spoken if spoken.endswith((" ", "\n")) else spoken + " ")
        if self._pieces:
            self._more.set()
