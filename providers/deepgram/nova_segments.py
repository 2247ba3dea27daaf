"""The words of one call as Nova tells them, over as many connections as it takes. No I/O, no clock.

Nova cuts the audio into segments, one after the other. Each is told again and again while it grows (interim), until it
is final; several make an utterance, which ends with a `speech_final` result or, where noise hides the pause, with an
UtteranceEnd. Whatever was told as final, by Nova or because we could not wait for it, is settled: it is not told again,
neither when Nova comes round to it nor when a new connection hears the same audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from providers.base import Transcript
from providers.deepgram.nova_wire import Alternative, NovaWord, Results, UtteranceEnd

SLACK_S = 0.1
"""Word times are no more exact than this."""


class NovaSegments:
    """Turns results into transcripts.

    Finals with less confidence than `min_confidence` are dropped; an empty final takes back the interim words that were
    told of them. `default_language` goes with results that name none.
    """

    def __init__(self, *, min_confidence: float | None, default_language: str | None) -> None:
        self._min_confidence = min_confidence or 0.0
        self._default_language = default_language
        self._settled_until = 0.0
        self._interim = ""
        self._interim_words: tuple[NovaWord, ...] = ()
        self._confidence = 0.0
        self._language = default_language
        self._utterance_open = False

    def take(self, results: Results) -> list[Transcript]:
        """What a report means; nothing when it repeats what is known."""
        best = results.best
        words = tuple(word for word in best.words if word.middle > self._settled_until)
        text = best.transcript if len(words) == len(best.words) else _text(words)
        if results.is_final:
            return self._final(results, text)
        behind = self._interim_words and results.end < self._interim_words[-1].middle
        if behind or text == self._interim:
            return []
        self._remember(best, text, words)
        return [Transcript(text, is_final=False, confidence=best.confidence, language=self._language)]

    def utterance_end(self, end: UtteranceEnd) -> list[Transcript]:
        """The pause after an utterance; nothing when a `speech_final` closed it, or somebody speaks on already."""
        if self._interim_words and self._interim_words[-1].middle > end.last_word_end + SLACK_S:
            return []
        told = self.promote()
        if not self._utterance_open:
            return told
        self._utterance_open = False
        return [replace(told[-1] if told else self._settled("", 1.0), speech_final=True)]

    def promote(self, until: float | None = None) -> list[Transcript]:
        """Take the interim words that ended by second `until` for final; the ones after it stay interim."""
        words = self._interim_words
        if until is None:
            return self._settle(len(words))
        return self._settle(sum(word.end <= until + SLACK_S for word in words))

    def rewind(self, earliest: float) -> tuple[float, list[Transcript]]:
        """The connection is gone: from which of its seconds (not before `earliest`) the next one needs the audio.

        Interim words from before that second become final, because nobody will hear them again.
        """
        replay_from = max(earliest, self._settled_until)
        lost = [word for word in self._interim_words if word.start < replay_from - SLACK_S]
        told = self._settle(len(lost)) if lost else []
        # What is left of a lost word must not be heard as another one.
        replay_from = max([replay_from, *(word.end for word in lost)])
        self._interim_words = tuple(
            NovaWord(word.word, word.start - replay_from, word.end - replay_from, word.punctuated_word)
            for word in self._interim_words
        )
        self._settled_until = 0.0
        return replay_from, told

    # --- inside ---

    def _settle(self, count: int) -> list[Transcript]:
        """Make the first `count` interim words final."""
        ready, rest = self._interim_words[:count], self._interim_words[count:]
        if not self._interim or (rest and not ready):
            return []
        text = _text(ready) if rest else self._interim
        self._interim, self._interim_words = _text(rest), rest
        told: list[Transcript] = []
        if self._confidence < self._min_confidence:
            told.append(self._settled("", self._confidence))
        else:
            self._settled_until = max([self._settled_until, *(word.end for word in ready)])
            self._utterance_open = True
            told.append(self._settled(text, self._confidence))
        if rest:
            told.append(Transcript(self._interim, is_final=False, confidence=self._confidence, language=self._language))
        return told

    def _final(self, results: Results, text: str) -> list[Transcript]:
        confidence = results.best.confidence
        taken_back = bool(self._interim)
        self._remember(results.best, "", ())
        if confidence < self._min_confidence:
            text = ""
        self._settled_until = max([self._settled_until, results.end, *(word.end for word in results.best.words)])
        self._utterance_open |= bool(text)
        speech_final = bool(results.speech_final)
        closes = speech_final and self._utterance_open
        if speech_final:
            self._utterance_open = False
        if not (text or taken_back or closes):
            return []
        return [Transcript(text, True, confidence, self._language, speech_final)]

    def _remember(self, best: Alternative, text: str, words: tuple[NovaWord, ...]) -> None:
        self._interim, self._interim_words = text, words
        self._confidence = best.confidence
        self._language = best.languages[0] if best.languages else self._default_language

    def _settled(self, text: str, confidence: float) -> Transcript:
        return Transcript(text, is_final=True, confidence=confidence, language=self._language)


def _text(words: Sequence[NovaWord]) -> str:
    return " ".join(word.text for word in words)
