"""The bot's mouth: a first-in-first-out queue of utterances, one of which is heard at a time.

Synthesis runs ahead of playback; an utterance whose turn to be heard has not come (the user has the floor, the turn is
only probably over) keeps its audio back. What the caller heard is read off the playout, and only that becomes
`bot.word`, `message.confirmed` and history: heard, not sent.
"""

from __future__ import annotations

import asyncio
from collections import deque

import structlog
from msgspec import UNSET

from pipelines.clock import Clock
from pipelines.events import CallEvents
from pipelines.medium import Medium
from pipelines.metering import BotSound
from pipelines.speaking.keys import Keys
from pipelines.speaking.listener import MouthListener, Silenced
from pipelines.speaking.playout import Audio, Playout
from pipelines.speaking.synthesis import Synthesis
from pipelines.speaking.utterance import ALL_MS, Origin, Stage, Utterance
from providers.base import TextToSpeech
from providers.errors import ProviderError
from wire.events import BotFinished, BotInterrupted, BotSpeaking, BotWord, CallDtmfSent, MessageConfirmed

log = structlog.get_logger(__name__)

MAX_QUEUED = 64
"""Utterances waiting in one call; one more is refused."""
AHEAD_SECONDS = 30
"""Synthesis stops running ahead of playback at this much audio."""
CONTINUATION_MS = 2000
"""A message heard for less did not answer anything: it is forgotten (protocol §3.13)."""


class Mouth:
    """Speaks for one call."""

    def __init__(self, medium: Medium, events: CallEvents, clock: Clock, listener: MouthListener) -> None:
        self._medium = medium
        self._events = events
        self._clock = clock
        self._listener = listener
        self._playout = Playout(medium.audio)
        self._queue: deque[Utterance] = deque()
        self._playing: Utterance | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        self._synthesis: Synthesis | None = None
        self.sound: BotSound | None = None
        """Listens in; None: nobody does."""

    # --- what to say ---

    def use_voice(self, voice: TextToSpeech) -> None:
        """Speak with this voice from the next utterance on."""
        self._synthesis = Synthesis(voice, self._medium.audio, self._on_audio, self._on_text)

    async def synthesised(self) -> None:
        """Until no voice is at work for what is queued now: an old one may then be let go."""
        tasks = [u.task for u in self._unspoken() if u.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def quiet(self) -> None:
        """Until everything that is queued now has been heard or dropped."""
        while self.busy:
            self._over.clear()
            await self._over.wait()

    def enqueue(self, utterance: Utterance) -> bool:
        """Say this after everything before it. False when too much is queued already."""
        if len(self._queue) >= MAX_QUEUED:
            return False
        utterance.queued_at = utterance.milestones.worded = self._clock.now()
        self._queue.append(utterance)
        self._wake.set()
        return True

    def find(self, message_id: str) -> Utterance | None:
        """The utterance of that id, playing or queued."""
        if self._playing is not None and self._playing.message_id == message_id:
            return self._playing
        return next((u for u in self._queue if u.message_id == message_id), None)

    @property
    def busy(self) -> bool:
        """True while something is being said or waits to be said."""
        return self._playing is not None or bool(self._queue)

    # --- stopping ---

    def barge_in(self) -> Silenced:
        """The user took the floor: stop what is heard and drop everything that waits. Keys are pressed nevertheless."""
        stopped = self._spoken()
        complete = stopped is not None and stopped.closed
        played = self._stop_playing(None) if stopped is not None else None
        reason = "continuation" if played is not None and played < CONTINUATION_MS else "user_spoke"
        messages = self._messages()
        waiting = tuple(u for u in messages if u.closed and u.origin is not Origin.SERVER)
        for utterance in messages:
            self._discard(utterance, reason)
        if stopped is None or played is None:
            return Silenced(None)
        heard = stopped.words.heard_text(played)
        rest = stopped.text.lstrip().removeprefix(heard).lstrip()
        unfinished = None if complete else stopped
        return Silenced(played, stopped.message_id, heard, rest, stopped.remembered, unfinished, waiting)

    def drop_replies(self) -> None:
        """The user went on before hearing an answer: answers are void, other things are still to be said."""
        for utterance in [u for u in self._queue if u.is_reply]:
            self._discard(utterance, "continuation")

    def cancel(self, message_id: str | None) -> None:
        """Stop that message; without an id, the one playing or else the next one."""
        if message_id is None:
            utterance = self._spoken() or next(iter(self._messages()), None)
        else:
            utterance = self.find(message_id)
        if utterance is None:
            return
        if utterance is self._playing:
            self._stop_playing("cancelled")
        else:
            self._discard(utterance, "cancelled")
        self._settle()

    def clear(self) -> None:
        """Stop everything, keys too."""
        self._stop_playing("cancelled")
        for utterance in list(self._queue):
            self._discard(utterance, "cancelled")
        self._settle()

    # --- the flow ---

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Synthesise what is queued, in order, until cancelled."""
        while True:
            utterance = next((u for u in self._unspoken() if u.stage is Stage.QUEUED), None)
            if utterance is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            utterance.move(Stage.SYNTHESISING)
            utterance.task = tasks.create_task(self._synthesise(utterance), name="speech")
            await asyncio.wait([utterance.task])
            while self._playout.unsent_ms > AHEAD_SECONDS * 1000:
                self._room.clear()
                await self._room.wait()

    def beat(self, now: float) -> None:
        """Called every tick: send what is due, tell what was heard, go on to the next utterance."""
        if self._playing is None and not self._queue:
            return
        self._send(now)
        self._go_on(now)

    def on_mark(self, name: str) -> None:
        """The carrier played up to that mark. What is being said keeps to the beat: echoes come at any moment."""
        now = self._clock.now()
        self._playout.echoed(name, now)
        self._go_on(now)

    def _spoken(self) -> Utterance | None:
        """The message that is being said."""
        return None if isinstance(self._playing, Keys) else self._playing

    def _messages(self) -> list[Utterance]:
        """The messages that wait to be said."""
        return [u for u in self._queue if not isinstance(u, Keys)]

    # --- inside: synthesis ---

    def _unspoken(self) -> list[Utterance]:
        return ([self._playing] if self._playing is not None else []) + list(self._queue)

    async def _synthesise(self, utterance: Utterance) -> None:
        assert self._synthesis is not None
        try:
            await self._synthesis.speak(utterance)
        except ProviderError as error:
            utterance.failed = True
            self._listener.on_mouth_trouble(error)
        utterance.synthesised = True
        if utterance is self._playing:
            self._playout.finish(utterance.message_id)
        self.beat(self._clock.now())

    def _on_text(self, utterance: Utterance) -> None:
        if utterance.milestones.voiced is None:
            utterance.milestones.voiced = self._clock.now()

    def _on_audio(self, utterance: Utterance, audio: bytes) -> None:
        if utterance.stage is Stage.OVER:
            return
        if utterance.milestones.sounded is None:
            utterance.milestones.sounded = self._clock.now()
        if utterance is self._playing:
            self._playout.append(utterance.message_id, audio)
        else:
            utterance.audio.append(audio)
        self.beat(self._clock.now())

    # --- inside: playback ---

    def _go_on(self, now: float) -> None:
        """Tell what was heard, and say the next utterance once this one is over."""
        self._tell_words(now)
        for message_id in self._playout.done(now):
            if self._playing is not None and self._playing.message_id == message_id:
                self._finish(self._playing)
        self._admit()
        if not self._room.is_set() and self._playout.unsent_ms <= AHEAD_SECONDS * 1000:
            self._room.set()

    def _admit(self) -> None:
        """Begin to play the next utterance when it is its moment."""
        while self._playing is None and self._queue:
            utterance = self._queue[0]
            if not (utterance.synthesised or utterance.audio) or not self._may_play(utterance):
                return
            self._queue.popleft()
            if not utterance.audio:
                self._over_without_sound(utterance)
                continue
            self._playing = utterance
            self._playout.begin(utterance.message_id)
            while utterance.audio:
                self._playout.append(utterance.message_id, utterance.audio.popleft())
            if utterance.synthesised:
                self._playout.finish(utterance.message_id)
            self._send(self._clock.now())

    def _may_play(self, utterance: Utterance) -> bool:
        return isinstance(utterance, Keys) or self._listener.may_play(utterance)

    def _send(self, now: float) -> None:
        for item in self._playout.pull(now):
            if isinstance(item, Audio):
                self._medium.send_audio(item.audio)
                self._sent(item.audio)
            else:
                self._medium.send_mark(item.name)

    def _sent(self, audio: bytes) -> None:
        utterance = self._playing
        if utterance is None:
            return
        if isinstance(utterance, Keys):
            return
        if self.sound is not None:
            self.sound.sent(utterance.message_id, audio, utterance.sent)
        utterance.sent += len(audio)
        if utterance.stage is not Stage.SYNTHESISING:
            return
        utterance.move(Stage.PLAYING)
        utterance.milestones.sent = self._clock.now()
        self._events.publish(BotSpeaking(message_id=utterance.message_id, text=utterance.announced_text))
        self._listener.on_audible(utterance)

    def _tell_words(self, now: float) -> None:
        utterance = self._playing
        if utterance is None or utterance.stage is not Stage.PLAYING:
            return
        heard_ms = self._playout.heard_ms(utterance.message_id, now)
        if heard_ms and not utterance.reached:
            self._reached(utterance, now - heard_ms / 1000)
        if self.sound is not None:
            self.sound.played(utterance.message_id, heard_ms)
        self._publish_words(utterance, heard_ms)

    def _reached(self, utterance: Utterance, since: float) -> None:
        utterance.reached = True
        if not self._playout.unconfirmed(utterance.message_id):
            utterance.milestones.heard = since
        self._listener.on_reached(utterance)

    def _publish_words(self, utterance: Utterance, heard_ms: int) -> None:
        for index, word in utterance.words.spoken(heard_ms):
            self._events.publish(
                BotWord(
                    message_id=utterance.message_id,
                    word=word.word,
                    word_index=index,
                    start_time=word.start_ms / 1000,
                    end_time=word.end_ms / 1000,
                )
            )

    # --- inside: endings ---

    def _finish(self, utterance: Utterance) -> None:
        """All of it was heard."""
        if isinstance(utterance, Keys):
            self._playing = None
            utterance.move(Stage.OVER)
            self._events.publish(CallDtmfSent(digits=utterance.digits))
            self._admit()
            self._settle()
            return
        duration = self._playout.heard_ms(utterance.message_id, self._clock.now())
        self._publish_words(utterance, ALL_MS)
        heard = utterance.words.heard_text(ALL_MS) if utterance.failed else utterance.text
        self._confirm(utterance, heard)
        self._playing = None
        utterance.move(Stage.OVER)
        self._events.publish(BotFinished(message_id=utterance.message_id, text=utterance.text, duration_ms=duration))
        if self.sound is not None:
            self.sound.over(utterance.message_id, duration)
        self._admit()
        self._settle()

    def _over_without_sound(self, utterance: Utterance) -> None:
        """Nothing to hear: an empty text, or a voice that failed. Whoever waits for the end is told."""
        utterance.move(Stage.OVER)
        self._listener.on_record(utterance, "")
        self._events.publish(BotFinished(message_id=utterance.message_id, text="", duration_ms=0))
        self._settle()

    def _stop_playing(self, reason: str | None) -> int | None:
        """Silence what is heard now. Without a reason it is the user's voice, and how much was heard decides what it
        means. Returns the ms heard."""
        utterance = self._playing
        if utterance is None:
            return None
        now = self._clock.now()
        played = self._playout.heard_ms(utterance.message_id, now)
        self._playout.clear(now)
        self._medium.send_clear()
        if isinstance(utterance, Keys):
            self._playing = None
            self._forget(utterance)
            return None
        self._publish_words(utterance, played)
        reason = reason or ("continuation" if played < CONTINUATION_MS else "user_spoke")
        heard = utterance.words.heard_text(played)
        if reason != "continuation" and heard:
            self._confirm(utterance, heard)
        else:
            self._listener.on_record(utterance, "")
        self._playing = None
        self._interrupted(utterance, played, reason)
        if self.sound is not None:
            self.sound.over(utterance.message_id, played)
        return played

    def _discard(self, utterance: Utterance, reason: str) -> None:
        self._queue.remove(utterance)
        if isinstance(utterance, Keys):
            self._forget(utterance)
            return
        self._listener.on_record(utterance, "")
        if utterance.origin is Origin.SERVER:
            # Nobody was ever told of it.
            self._forget(utterance)
        else:
            self._interrupted(utterance, 0, reason)

    def _interrupted(self, utterance: Utterance, played_ms: int, reason: str) -> None:
        self._forget(utterance)
        last = utterance.words.last_word
        self._events.publish(
            BotInterrupted(
                message_id=utterance.message_id,
                played_ms=played_ms,
                words_spoken=utterance.words.count,
                reason=reason,
                last_word=last if last else UNSET,
            )
        )

    def _forget(self, utterance: Utterance) -> None:
        utterance.move(Stage.OVER)
        self._over.set()
        utterance.close()
        utterance.audio.clear()
        if utterance.task is not None:
            utterance.task.cancel()

    def _confirm(self, utterance: Utterance, heard: str) -> None:
        self._events.publish(MessageConfirmed(message_id=utterance.message_id, text=heard))
        self._listener.on_record(utterance, heard)

    def _settle(self) -> None:
        self._over.set()
        # A stream that has no words yet keeps nobody from being listened to.
        coming = [u for u in self._messages() if u.text or u.closed]
        if self._spoken() is None and not any(self._listener.may_play(u) for u in coming):
            self._listener.on_silent()
