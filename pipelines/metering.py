"""What an agent may ask to be told about the sound of a call (`config.analysis`): how loud both sides are, and the
sound of whole turns and messages (behaviour §6.14, §6.7).

The ears and the mouth let a `UserSound` and a `BotSound` listen in, only while something of it is asked for. The user's
sound counts when it comes in, the bot's when the caller hears it. Audio is kept in the line's format, within bounds.
"""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipelines.audio import levels
from pipelines.audio.convert import Converter
from pipelines.clock import Clock
from pipelines.events import CallEvents
from providers.base import AudioFormat, Encoding, VadFrame
from wire.config import CallConfig
from wire.events import AudioMetrics, BotAudioComplete, TurnAudio

MAX_INTERVAL_MS = 1000
WATCHED_INTERVAL_MS = 100
"""How often watchers are told, unless the agent is too, at an interval of its own."""
MAX_TURN_SECONDS = 60
"""Of a longer turn, its last minute is told."""
MAX_MESSAGE_SECONDS = 120
"""Of a longer message, its first two minutes are told."""
LEAD_IN_MS = 200
"""Sound before a turn that belongs to it: onsets are soft."""
OVERLAP_MS = 2000
"""Whoever interrupted the bot was speaking before their turn began; so far back it is looked for."""
VOICE_DB = -45.0
"""Louder than this is taken for a voice when looking for where it began (dBFS)."""
BOT_SPEECH_RMS = 0.01
"""The bot speaks when it is louder than this (behaviour §6.14)."""
_FRAME_MS = 20
_SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class Reading:
    """How loud one side was: `energy_db` -60..0, `rms` and `peak` 0..1 of full scale."""

    energy_db: float = levels.FLOOR_DB
    rms: float = 0.0
    peak: float = 0.0
    is_speech: bool = False
    vad_prob: float = 0.0


SILENT = Reading()
LevelListener = Callable[[str, Reading], None]
"""Gets `user` or `bot` and how loud that side is. Neither blocks nor raises."""


def measure(pcm: bytes) -> Reading:
    """How loud 16-bit audio is; speech is for others to judge. Zeros are `SILENT`."""
    rms = levels.rms(pcm)
    if not rms:
        return SILENT
    return Reading(
        energy_db=round(levels.energy_db(pcm), 2),
        rms=round(rms / levels.FULL_SCALE, 4),
        peak=round(levels.peak(pcm) / levels.FULL_SCALE, 4),
    )


class UserSound:
    """The caller's side of the line. `threshold` is the voice probability that counts as speech."""

    def __init__(self, line: AudioFormat) -> None:
        self.metered = False
        self.kept = False
        self.threshold = 0.5
        self._line = line
        self._pcm = _to_pcm(line)
        self._fresh = bytearray()
        self._ring = bytearray()
        self._probability = 0.0
        self._highest: float | None = None
        self._last = SILENT

    def heard(self, audio: bytes) -> None:
        """More of it."""
        if self.metered:
            self._fresh += audio
        if self.kept:
            self._ring += audio
            excess = len(self._ring) - MAX_TURN_SECONDS * self._line.bytes_per_second
            if excess > self._line.bytes_per_second:
                # A second at a time: moving half a megabyte for every frame would cost more than the frame.
                del self._ring[:excess]

    def voice(self, frame: VadFrame) -> None:
        """The voice detector's verdict."""
        self._probability = frame.probability
        self._highest = max(self._highest or 0.0, frame.probability)

    def read(self) -> Reading:
        """How loud it was since last read. While a line that stutters brings nothing, the last reading stands: gaps
        that are more than that are filled with silence by the ears."""
        if not self._fresh:
            return self._last
        probability = self._probability if self._highest is None else self._highest
        reading = measure(self._pcm.convert(bytes(self._fresh)))
        if reading is not SILENT:
            reading = replace(reading, is_speech=probability >= self.threshold, vad_prob=round(probability, 3))
        self._fresh.clear()
        self._highest = None
        self._last = reading
        return reading

    def turn(self, length_ms: int) -> bytes:
        """The last `length_ms` and what leads into them, as 16-bit audio."""
        start = max(0, len(self._ring) - self._size(length_ms))
        return self._pcm.convert(bytes(self._ring[max(0, self._voice_before(start) - self._size(LEAD_IN_MS)) :]))

    def _voice_before(self, start: int) -> int:
        """Where the voice began that sounds at `start`."""
        step, began = self._size(_FRAME_MS), start
        for at in range(start - step, max(0, start - self._size(OVERLAP_MS)) - 1, -step):
            if levels.energy_db(self._pcm.convert(bytes(self._ring[at : at + step]))) >= VOICE_DB:
                began = at
            elif began - at > self._size(LEAD_IN_MS):
                break
        return began

    def _size(self, ms: int) -> int:
        return _size(self._line, ms)


class BotSound:
    """The bot's side: handed to the line ahead of time, and heard by and by. One message at a time."""

    def __init__(self, line: AudioFormat, tell: Callable[[str, bytes], None]) -> None:
        """`tell` gets a message's id and what was heard of it as 16-bit audio, when `kept`."""
        self.metered = False
        self.kept = False
        self._line = line
        self._pcm = _to_pcm(line)
        self._tell = tell
        self._message_id = ""
        self._pending = bytearray()
        self._heard = 0
        self._fresh = bytearray()
        self._clip: bytearray | None = None

    def sent(self, message_id: str, audio: bytes, before: int) -> None:
        """Audio of a message went to the line after `before` bytes of it."""
        if message_id != self._message_id:
            self._message_id, self._heard = message_id, before
            self._pending.clear()
            # A message whose beginning was missed is not told: it would not be what was said.
            self._clip = bytearray() if self.kept and before == 0 else None
        self._pending += audio
        if self._clip is not None:
            room = MAX_MESSAGE_SECONDS * self._line.bytes_per_second - len(self._clip)
            self._clip += audio[: max(0, room)]

    def played(self, message_id: str, heard_ms: int) -> None:
        """So much of the message has reached the caller's ear."""
        if message_id != self._message_id:
            return
        size = _size(self._line, heard_ms) - self._heard
        if size > 0:
            if self.metered:
                self._fresh += self._pending[:size]
            del self._pending[:size]
            self._heard += size

    def over(self, message_id: str, heard_ms: int) -> None:
        """The message is finished or was stopped; that much of it was heard and no more will be."""
        if message_id != self._message_id:
            return
        self.played(message_id, heard_ms)
        clip, self._clip = self._clip, None
        self._message_id = ""
        self._pending.clear()
        if clip and self.kept and heard_ms:
            self._tell(message_id, self._pcm.convert(bytes(clip[: _size(self._line, heard_ms)])))

    def read(self) -> Reading:
        """How loud it was since last read."""
        reading = measure(self._pcm.convert(bytes(self._fresh)))
        self._fresh.clear()
        return replace(reading, is_speech=True, vad_prob=1.0) if reading.rms > BOT_SPEECH_RMS else reading


class Metering:
    """Everything of `config.analysis` in one call. `user` and `bot` are None while nobody asks for them."""

    def __init__(self, line: AudioFormat, events: CallEvents, clock: Clock) -> None:
        self.user: UserSound | None = None
        self.bot: BotSound | None = None
        self._line = line
        self._events = events
        self._clock = clock
        self._interval = 0.0
        self._due = 0.0
        self._told = False
        self._watchers: list[LevelListener] = []

    def watch(self, listener: LevelListener) -> None:
        """Tell this one how loud both sides are, whatever the agent has asked for. `configure` again afterwards."""
        self._watchers.append(listener)

    def unwatch(self, listener: LevelListener) -> None:
        """No more. `configure` again afterwards."""
        self._watchers.remove(listener)

    def configure(self, config: CallConfig) -> None:
        """Tell from now on what `config.analysis` asks for. Of the bot, a message that is being said counts for
        loudness at once, but is not told as a whole."""
        wanted = config.analysis
        self._told = wanted.send_audio_metrics
        metered = self._told or bool(self._watchers)
        self.user = (self.user or UserSound(self._line)) if metered or wanted.send_turn_audio else None
        if self.user is not None:
            self.user.metered, self.user.kept = metered, wanted.send_turn_audio
            self.user.threshold = config.vad.threshold
        self.bot = (self.bot or BotSound(self._line, self._tell_message)) if metered or wanted.send_bot_audio else None
        if self.bot is not None:
            self.bot.metered, self.bot.kept = metered, wanted.send_bot_audio
        asked = wanted.audio_metrics_interval_ms if self._told else WATCHED_INTERVAL_MS
        interval = min(asked, MAX_INTERVAL_MS) / 1000 if metered else 0.0
        if interval != self._interval:
            self._interval, self._due = interval, self._clock.now() + interval

    def beat(self, now: float) -> None:
        """Called every tick: one reading a source when an interval is over. Missed intervals are not made up for."""
        if not self._interval or now + _SLACK < self._due:
            return
        self._due += (int((now + _SLACK - self._due) / self._interval) + 1) * self._interval
        if self.user is not None:
            self._tell_reading("user", self.user.read())
        if self.bot is not None:
            self._tell_reading("bot", self.bot.read())

    def turn_ended(self, turn_id: int, length_ms: int) -> None:
        """The user's turn, `length_ms` long until now, is over."""
        if self.user is not None and self.user.kept:
            sound = _wav(self.user.turn(length_ms), self._line.rate)
            self._events.publish(TurnAudio(turn_id=turn_id, audio=sound, sample_rate=self._line.rate))

    def _tell_reading(self, source: str, reading: Reading) -> None:
        for watcher in self._watchers:
            watcher(source, reading)
        if not self._told:
            return
        self._events.publish(
            AudioMetrics(
                source=source,
                energy_db=reading.energy_db,
                rms=reading.rms,
                peak=reading.peak,
                is_speech=reading.is_speech,
                vad_prob=reading.vad_prob,
                timestamp=self._clock.wall(),
            )
        )

    def _tell_message(self, message_id: str, pcm: bytes) -> None:
        rate = self._line.rate
        self._events.publish(
            BotAudioComplete(
                message_id=message_id,
                audio=_wav(pcm, rate),
                sample_rate=rate,
                duration_ms=len(pcm) // 2 * 1000 // rate,
            )
        )


def _to_pcm(line: AudioFormat) -> Converter:
    return Converter(line, AudioFormat(Encoding.PCM16, line.rate))


def _size(line: AudioFormat, ms: int) -> int:
    """Bytes of so many ms, whole samples."""
    return line.bytes_per_second * ms // 1000 // 2 * 2


def _wav(pcm: bytes, rate: int) -> str:
    """16-bit mono audio as a WAV file in base64."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(pcm)
    return base64.b64encode(file.getbuffer()).decode("ascii")
