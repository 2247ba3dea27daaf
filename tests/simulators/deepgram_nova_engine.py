"""What simulated Nova hears and says: a machine over 20 ms frames of audio, without sockets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from tests.simulators.deepgram_sound import FRAME_MS, Ear, Script

Message = dict[str, object]


class Closing(Enum):
    """How the end of an utterance shows."""

    ENDPOINT = auto()
    """A final result with `speech_final`, after `endpointing` ms of quiet."""
    NOISE = auto()
    """Noise hides the pause: a final result without it, and later the UtteranceEnd."""
    NEVER = auto()
    """Interim results only, until the client asks for more."""


@dataclass(frozen=True, slots=True)
class Line:
    """One utterance. With `at_ms` it sounds from then on for `for_ms` of the connection's audio.

    Bars in the text (`I want | a table`) cut it into segments with final results of their own.
    """

    text: str
    closing: Closing = Closing.ENDPOINT
    at_ms: int | None = None
    for_ms: int = 1000
    language: str = "en"
    confidence: float = 0.98

    @property
    def words(self) -> list[str]:
        return [word for word in self.text.split() if word != "|"]

    @property
    def cuts(self) -> list[int]:
        """How many words there are before each bar."""
        parts = self.text.split("|")[:-1]
        return [sum(len(part.split()) for part in parts[: place + 1]) for place in range(len(parts))]


@dataclass(frozen=True, slots=True)
class NovaPace:
    """When audio counts as speech (RMS of 16-bit samples), and how much of it or of quiet means what (ms)."""

    loud: float = 400.0
    start_ms: int = 60
    word_ms: int = 200
    interim_ms: int = 500
    settled_quiet_ms: int = 200
    """After this much quiet all words of the line are known."""
    idle_ms: int = 3000
    """How often there is an empty result when nobody speaks."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the client wants; ms, None for off."""

    interim: bool
    endpointing: int | None
    utterance_end: int | None
    vad_events: bool
    formatted: bool
    multilingual: bool


class NovaEngine:
    """One connection's words; each method returns the messages it causes."""

    def __init__(self, script: Script[Line], pace: NovaPace, asked: Asked, metadata: Message) -> None:
        self._script = script
        self._pace = pace
        self._asked = asked
        self._metadata = metadata
        self._ear = Ear(pace.loud)
        self._speaking = False
        self._began = 0
        self._segment = 0
        self._settled = 0
        """Words of the line that are final."""
        self._told_at = 0
        self._last_word_end: int | None = None

    def hear(self, rms: float) -> list[Message]:
        """One frame of audio."""
        line = self._script.current()
        self._ear.hear(line, rms, between=not self._speaking)
        if line is not None and not self._speaking and self._ear.loud_ms >= self._pace.start_ms:
            return self._begin()
        if line is not None and self._speaking:
            return self._go_on(line)
        return self._utterance_end() or self._idle()

    def finalize(self) -> list[Message]:
        """All that can be said by now."""
        line = self._script.current()
        if line is None or not self._speaking:
            return [self._results([], final=True) | {"from_finalize": True}]
        known = self._known(line)
        answer = self._final(line, known) | {"from_finalize": True}
        if known == len(line.words):
            self._over()
        return [answer]

    def flush(self) -> list[Message]:
        """What CloseStream still brings."""
        return self.finalize() if self._speaking else []

    # --- inside ---

    def _begin(self) -> list[Message]:
        self._speaking = True
        self._began = self._ear.now_ms - self._ear.loud_ms
        self._last_word_end = None
        self._told_at = self._ear.now_ms
        if not self._asked.vad_events:
            return []
        return [{"type": "SpeechStarted", "channel": [0], "timestamp": self._began / 1000}]

    def _go_on(self, line: Line) -> list[Message]:
        known = self._known(line)
        due = [cut for cut in line.cuts if self._settled < cut < known]
        if due:
            return [self._final(line, due[0])]
        quiet, endpointing = self._ear.quiet_ms, self._asked.endpointing
        if line.closing is Closing.ENDPOINT and endpointing is not None and quiet >= endpointing:
            ended = self._final(line, len(line.words)) | {"speech_final": True}
            self._over()
            return [ended]
        if line.closing is not Closing.NEVER and quiet >= 700:
            ended = self._final(line, len(line.words))
            self._over()
            return [ended]
        if self._asked.interim and self._ear.now_ms - self._told_at >= self._pace.interim_ms:
            return [self._results(self._words(line, self._settled, known), final=False, line=line)]
        return []

    def _known(self, line: Line) -> int:
        if self._ear.quiet_ms >= self._pace.settled_quiet_ms:
            return len(line.words)
        return min(len(line.words), max(self._settled, 1 + self._sounded() // self._word_ms(line)))

    def _sounded(self) -> int:
        return self._ear.now_ms - self._ear.quiet_ms - self._began

    def _word_ms(self, line: Line) -> int:
        return self._pace.word_ms if line.at_ms is None else max(1, line.for_ms // len(line.words))

    def _final(self, line: Line, upto: int) -> Message:
        words = self._words(line, self._settled, upto)
        self._settled = upto
        if words:
            self._last_word_end = round(1000 * float(str(words[-1]["end"])))
        return self._results(words, final=True, line=line)

    def _over(self) -> None:
        self._speaking = False
        self._settled = 0
        self._ear.rest()
        self._script.use_up()

    def _utterance_end(self) -> list[Message]:
        wait, last = self._asked.utterance_end, self._last_word_end
        if self._speaking or wait is None or last is None or self._ear.now_ms - last < wait:
            return []
        self._last_word_end = None
        return [{"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": last / 1000}]

    def _idle(self) -> list[Message]:
        if self._ear.now_ms - self._told_at < self._pace.idle_ms:
            return []
        return [self._results([], final=True)]

    def _words(self, line: Line, first: int, upto: int) -> list[Message]:
        # Somebody who speaks faster than the pace is heard in time all the same.
        each = min(self._word_ms(line), max(FRAME_MS, self._sounded()) / len(line.words))
        if upto < len(line.words):
            each = self._word_ms(line)
        words: list[Message] = []
        for place, word in list(enumerate(line.words))[first:upto]:
            start = (self._began + place * each) / 1000
            heard: Message = {"word": word.lower().strip(".,?!"), "start": start, "end": start + each / 1000}
            heard |= {"confidence": line.confidence}
            if self._asked.formatted:
                heard |= {"punctuated_word": word}
            if self._asked.multilingual:
                heard |= {"language": line.language}
            words.append(heard)
        return words

    def _results(self, words: Sequence[Message], *, final: bool, line: Line | None = None) -> Message:
        now = self._ear.now_ms
        written = [str(word.get("punctuated_word", word["word"])) for word in words]
        best: Message = {"transcript": " ".join(written), "confidence": 0.0, "words": list(words)}
        if line is not None and words:
            best |= {"confidence": line.confidence}
            if self._asked.multilingual:
                best |= {"languages": [line.language], "languages_hinted": []}
        message: Message = {
            "type": "Results",
            "channel_index": [0, 1],
            "start": self._segment / 1000,
            "duration": (now - self._segment) / 1000,
            "is_final": final,
            "speech_final": False,
            "from_finalize": False,
            "channel": {"alternatives": [best]},
            "metadata": self._metadata,
        }
        self._told_at = now
        if final:
            self._segment = now
        return message
