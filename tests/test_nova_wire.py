"""Nova without sockets: what is asked for, what is understood, and how results become transcripts."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import MULAW_8K, PCM_8K, PCM_16K, AudioFormat, Encoding, Transcript
from providers.deepgram.messages import Unreadable
from providers.deepgram.nova_segments import NovaSegments
from providers.deepgram.nova_wire import (
    Alternative,
    Channel,
    NovaError,
    NovaWord,
    Results,
    UtteranceEnd,
    language_tag,
    listen_url,
    parse,
)
from providers.loudness import loud_share
from tests.simulators.deepgram_nova import query_problem
from tests.speech import noise_mulaw, noise_pcm, say_mulaw, say_pcm
from wire.config import JsonValue, NovaStt, SttConfig
from wire.resolve import Layer, ServerDefaults, normalise, resolve


def asked(config: NovaStt, audio: AudioFormat = MULAW_8K) -> dict[str, list[str]]:
    """The query, which the strict simulator must find nothing wrong with."""
    url = urlsplit(listen_url("wss://nova.example/", config, audio))
    assert (url.scheme, url.netloc, url.path) == ("wss", "nova.example", "/v1/listen")
    query = parse_qs(url.query, keep_blank_values=True)
    assert query_problem(query) is None
    return query


def from_sdk(options: dict[str, JsonValue]) -> SttConfig:
    """The settings that an agent's options come to."""
    agent: dict[str, JsonValue] = {"stt": {"provider": "deepgram", **options}, "voice": "elevenlabs:x"}
    return resolve([Layer(normalise(agent))], ServerDefaults(keys=frozenset({"deepgram", "elevenlabs"}))).stt


# --- the query ---


@pytest.mark.proves("row-87")
def test_the_defaults_are_the_documented_ones() -> None:
    assert asked(NovaStt()) == {
        "model": ["nova-3"],
        "language": ["en"],
        "encoding": ["mulaw"],
        "sample_rate": ["8000"],
        "interim_results": ["true"],
        "smart_format": ["true"],
        "punctuate": ["true"],
        "profanity_filter": ["false"],
        "vad_events": ["false"],
        "endpointing": ["300"],
        "utterance_end_ms": ["1000"],
    }


@pytest.mark.proves("row-87")
@pytest.mark.parametrize(
    ("option", "name", "sent"),
    [
        ({"model": "nova-3-medical"}, "model", ["nova-3-medical"]),
        ({"language": "fr"}, "language", ["fr"]),
        ({"interim_results": False}, "interim_results", ["false"]),
        ({"smart_format": False}, "smart_format", ["false"]),
        ({"punctuate": False}, "punctuate", ["false"]),
        ({"profanity_filter": True}, "profanity_filter", ["true"]),
        ({"use_native_vad": True}, "vad_events", ["true"]),
        ({"endpointing_ms": 450}, "endpointing", ["450"]),
        ({"utterance_end_ms": 1500}, "utterance_end_ms", ["1500"]),
        ({"utterance_end_ms": 200}, "utterance_end_ms", ["1000"]),
        ({"model": "nova-2", "keywords": ["pinecall:2", "mara"]}, "keywords", ["pinecall:2", "mara"]),
        ({"keywords": ["pinecall:2", "mara"]}, "keyterm", ["pinecall", "mara"]),
        ({"keyterms": ["La Boca", "Pinecall"]}, "keyterm", ["La Boca", "Pinecall"]),
        ({"model": "nova-2", "keyterms": ["Pinecall"]}, "keywords", ["Pinecall"]),
        ({"min_confidence": 0.4}, "min_confidence", None),
    ],
    ids=str,
)
def test_every_option_of_an_agent_reaches_nova(option: dict[str, JsonValue], name: str, sent: list[str] | None) -> None:
    config = from_sdk(option)
    assert isinstance(config, NovaStt)
    assert asked(config).get(name) == sent


def test_without_interim_results_no_utterance_end_is_asked_for() -> None:
    assert "utterance_end_ms" not in asked(NovaStt(interim_results=False))


def test_endpointing_can_be_switched_off() -> None:
    assert asked(NovaStt(endpointing_ms=0))["endpointing"] == ["false"]


@pytest.mark.parametrize(
    ("language", "tag"),
    [
        ("en", "en"),
        ("en_US", "en-US"),
        ("EN-gb", "en-GB"),
        ("en-ZA", "en"),
        ("es", "es"),
        ("es-ES", "es"),
        ("es-AR", "es-419"),
        ("pt-br", "pt-BR"),
        ("fr-FR", "fr"),
        ("zh-hant", "zh-Hant"),
        ("nb-NO", "no"),
        ("multi", "multi"),
    ],
)
def test_the_nearest_language_that_deepgram_has_is_asked_for(language: str, tag: str) -> None:
    assert language_tag(language) == tag
    assert asked(NovaStt(language=language))["language"] == [tag]


def test_a_keyterm_cannot_smuggle_parameters() -> None:
    query = asked(NovaStt(keyterms=("a&redact=pii", "Café Müller & Söhne", " ", "50%+", "a&redact=pii")))
    assert query["keyterm"] == ["a&redact=pii", "Café Müller & Söhne", "50%+"]
    assert "redact" not in query


@pytest.mark.parametrize(("audio", "encoding", "rate"), [(PCM_8K, "linear16", "8000"), (PCM_16K, "linear16", "16000")])
def test_sixteen_bit_audio_is_named(audio: AudioFormat, encoding: str, rate: str) -> None:
    query = asked(NovaStt(), audio)
    assert (query["encoding"], query["sample_rate"]) == ([encoding], [rate])


# --- the messages ---


def test_messages_are_read_with_what_may_be_missing_or_null() -> None:
    results = parse(
        '{"type":"Results","start":1,"duration":0.5,"is_final":true,"speech_final":null,"new":{},'
        '"channel":{"alternatives":[{"transcript":"Hi.","confidence":0.5,'
        '"words":[{"word":"hi","start":1.1,"end":1.3,"confidence":0.5,"punctuated_word":"Hi."}]}]}}'
    )
    assert isinstance(results, Results)
    assert results.best == Alternative("Hi.", 0.5, (NovaWord("hi", 1.1, 1.3, "Hi."),))
    assert (results.is_final, results.speech_final, results.end) == (True, None, 1.5)
    assert parse('{"type":"UtteranceEnd","channel":[0,1],"last_word_end":2.5}') == UtteranceEnd(2.5)
    assert parse('{"type":"Error","variant":"V","description":"d","message":"m"}') == NovaError("V", "d", "m")
    nothing = parse('{"type":"Results","channel":{"alternatives":[]}}')
    assert isinstance(nothing, Results)
    assert nothing.best == Alternative()


@pytest.mark.parametrize("kind", ["Metadata", "SpeechStarted", "ConfigureSuccess", "Telemetry"])
def test_what_is_of_no_use_or_new_is_ignored(kind: str) -> None:
    assert parse(f'{{"type":"{kind}","channel":3}}') is None


@pytest.mark.parametrize("garbage", ["", "{", "[]", '{"start":1}', '{"type":"Results","channel":7}', b"\xff\xfe"])
def test_garbage_is_named_as_such(garbage: str | bytes) -> None:
    with pytest.raises(Unreadable):
        parse(garbage)


# --- the words ---


def segments(min_confidence: float | None = None) -> NovaSegments:
    return NovaSegments(min_confidence=min_confidence, default_language="en")


def result(text: str, start: float, end: float, flags: str = "", confidence: float = 0.9) -> Results:
    """A segment from `start` to `end` whose words take 0.5 s each, from its beginning. `flags`: F(inal), S(peech)."""
    words = tuple(
        NovaWord(word, start + 0.5 * place, start + 0.5 * place + 0.5) for place, word in enumerate(text.split())
    )
    best = Alternative(text, confidence, words)
    channel = Channel((best,))
    return Results(start, end - start, "F" in flags, "S" in flags, False, channel)


def told(machine: NovaSegments, *messages: Results | UtteranceEnd) -> list[str]:
    """What came of them: `text…` interim, `text` final, `text.` final and the end of an utterance."""
    out: list[Transcript] = []
    for message in messages:
        out += machine.take(message) if isinstance(message, Results) else machine.utterance_end(message)
    return [written(transcript) for transcript in out]


def written(transcript: Transcript) -> str:
    return transcript.text + ("." if transcript.speech_final else "" if transcript.is_final else "…")


def test_interims_grow_and_finals_end_their_segment() -> None:
    assert told(
        segments(),
        result("I", 0, 0.5),
        result("I want", 0, 1),
        result("I want", 0, 1.5),
        result("I want a", 0, 1.5, "F"),
        result("table", 1.5, 2),
        result("table", 1.5, 2.5, "FS"),
    ) == ["I…", "I want…", "I want a", "table…", "table."]


def test_confidence_and_language_are_passed_on() -> None:
    machine = NovaSegments(min_confidence=None, default_language=None)
    best = Alternative("hola", 0.7, (NovaWord("hola", 0, 0.5),), ("es",))
    assert machine.take(Results(0, 1, True, channel=Channel((best,)))) == [Transcript("hola", True, 0.7, "es")]
    assert segments().take(result("hello", 0, 1, "F")) == [Transcript("hello", True, 0.9, "en")]


def test_an_utterance_ends_once() -> None:
    """By `speech_final`, which may be empty, or by UtteranceEnd, whichever comes first."""
    machine = segments()
    assert told(machine, result("yes", 0, 1, "F"), result("", 1, 1.5, "FS"), UtteranceEnd(0.5)) == ["yes", "."]
    assert told(machine, result("no", 2, 3, "F"), UtteranceEnd(2.5), result("", 3, 5, "FS")) == ["no", "."]
    assert told(machine, result("", 5, 8, "FS"), UtteranceEnd(2.5)) == []


def test_utterance_end_makes_pending_words_final() -> None:
    assert told(segments(), result("thank you", 0, 2), UtteranceEnd(1.0), result("thank you", 0, 3, "F")) == [
        "thank you…",
        "thank you.",
    ]


def test_an_utterance_end_that_comes_late_does_not_cut_the_next_one() -> None:
    machine = segments()
    assert told(machine, result("yes", 0, 1, "F"), result("and", 2, 2.5), UtteranceEnd(0.5)) == ["yes", "and…"]


def test_an_empty_final_takes_interim_words_back() -> None:
    assert told(segments(), result("uh", 0, 0.5), result("", 0, 1, "F")) == ["uh…", ""]


def test_promoted_words_are_not_told_again() -> None:
    machine = segments()
    told(machine, result("book a", 0, 1))
    assert [written(transcript) for transcript in machine.promote()] == ["book a"]
    assert machine.promote() == []
    assert told(machine, result("book a", 0, 1.2), result("book a table", 0, 1.5)) == ["table…"]
    assert told(machine, result("book a table", 0, 2, "FS"), UtteranceEnd(1.5)) == ["table."]


def test_a_final_that_brings_nothing_new_only_closes_the_utterance() -> None:
    machine = segments()
    told(machine, result("book a table", 0, 1.5))
    machine.promote()
    assert told(machine, result("book a table", 0, 2, "FS")) == ["."]


def test_words_said_after_the_question_are_not_promoted() -> None:
    machine = segments()
    told(machine, result("book a ta", 0, 1.5))
    assert [written(transcript) for transcript in machine.promote(until=1.0)] == ["book a", "ta…"]
    assert told(machine, result("book a table", 0, 2, "FS")) == ["table."]


@pytest.mark.proves("row-87")
def test_finals_below_min_confidence_are_discarded_and_their_interims_taken_back() -> None:
    machine = segments(min_confidence=0.5)
    assert told(
        machine,
        result("hm", 0, 0.5, confidence=0.3),
        result("hm", 0, 1, "F", confidence=0.49),
        result("noise", 1, 2, "FS", confidence=0.1),
        result("hello", 2, 3, "FS", confidence=0.5),
    ) == ["hm…", "", "hello."]


def test_a_promotion_is_no_way_around_min_confidence() -> None:
    machine = segments(min_confidence=0.5)
    told(machine, result("book it", 0, 1, confidence=0.3))
    assert [written(transcript) for transcript in machine.promote()] == [""]
    assert told(machine, result("book it", 0, 1, "F", confidence=0.8)) == ["book it"]


# --- over two connections ---


def test_what_is_final_is_not_heard_again() -> None:
    machine = segments()
    told(machine, result("I want", 0, 1.2, "F"), result("a", 1.2, 1.7))
    assert machine.rewind(earliest=0.0) == (1.2, [])
    assert told(machine, result("a", 0, 0.5), result("a table", 0, 1.5, "FS")) == ["a table."]


def test_interim_words_that_are_out_of_reach_become_final() -> None:
    machine = segments()
    told(machine, result("I would like to book a table", 0, 3.5))
    replay_from, kept = machine.rewind(earliest=1.3)
    assert [written(transcript) for transcript in kept] == ["I would like", "to book a table…"]
    assert replay_from == 1.5
    assert told(machine, result("to book", 0, 1), result("to book a table for", 0, 2.5)) == ["to book a table for…"]


def test_interim_words_can_be_promoted_before_the_new_connection_comes_to_them() -> None:
    machine = segments()
    told(machine, result("yes", 1, 1.2, "F"), result("book it", 1.5, 2.5))
    assert machine.rewind(earliest=0.0)[0] == 1.5
    assert [written(transcript) for transcript in machine.promote()] == ["book it"]
    assert told(machine, result("book it", 0, 1.2), result("book it now", 0, 2, "F")) == ["now"]


def test_a_connection_that_breaks_again_at_once_loses_no_words() -> None:
    machine = segments()
    told(machine, result("book it", 1.0, 2.0))
    assert machine.rewind(earliest=0.5) == (0.5, [])
    assert machine.rewind(earliest=-1.0) == (0.0, [])
    assert told(machine, result("book it", 0.5, 1.5, "F")) == ["book it"]


class IdealNova:
    """Hears every word that is whole in the audio it gets (a tenth of a second more or less), at its true time.

    Word k of the call sounds from second k/2 to k/2 + 0.5. Connections break, but never without some result on all that
    is older than 0.8 s.
    """

    def __init__(self, words: int) -> None:
        self.machine = segments()
        self.heard: list[str] = []
        self._words = words
        self._began = 0.0
        self._segment = 0.0
        self._now = 0.0

    def hear(self, now: float, *, final: bool) -> None:
        """A result on everything up to second `now` of the call."""
        self._now = now
        names = [place for place in range(self._words) if self._segment - 0.11 <= place / 2 and place / 2 + 0.5 <= now]
        words = tuple(NovaWord(f"w{k}", k / 2 - self._began, k / 2 + 0.5 - self._began) for k in names)
        best = Alternative(" ".join(word.word for word in words), 0.9, words)
        end = max([self._segment, *(k / 2 + 0.5 for k in names)])
        self._keep(
            self.machine.take(
                Results(self._segment - self._began, end - self._segment, final, channel=Channel((best,)))
            )
        )
        if final:
            self._segment = end

    def promote(self, now: float) -> None:
        self._keep(self.machine.promote(until=now - self._began))

    def breaks(self, now: float, reach: float) -> None:
        """The next connection hears from where the machine says, at most `reach` seconds back."""
        self.hear(max(self._now, now - 0.8), final=False)
        replay_from, kept = self.machine.rewind(max(0.0, now - reach) - self._began)
        self._keep(kept)
        self._began = self._segment = self._began + replay_from

    def _keep(self, transcripts: list[Transcript]) -> None:
        self.heard += [word for transcript in transcripts if transcript.is_final for word in transcript.text.split()]


@pytest.mark.proves("row-210")
@given(st.lists(st.tuples(st.sampled_from(["interim", "final", "promote", "break"]), st.integers(1, 8)), max_size=60))
def test_whatever_breaks_every_word_is_final_once_and_in_order(story: list[tuple[str, int]]) -> None:
    said = 60
    nova, now = IdealNova(said), 0.0
    for happening, tenths in story:
        now += tenths / 10
        match happening:
            case "promote":
                nova.promote(now)
            case "break":
                nova.breaks(now, reach=3.0)
            case _:
                nova.hear(now, final=happening == "final")
    nova.hear(now, final=True)
    nova.hear(said / 2, final=True)
    lost = [f"w{k}" for k in range(said) if f"w{k}" not in nova.heard]
    assert nova.heard == sorted(nova.heard, key=lambda word: int(word[1:]))
    assert len(nova.heard) == len(set(nova.heard))
    assert lost == []


# --- the ear of the watchdog ---


def test_speech_is_loud_and_line_noise_is_not() -> None:
    for audio, noise, encoding in (
        (say_mulaw("Is anybody there?"), noise_mulaw(1000, -45), Encoding.MULAW),
        (say_pcm("Is anybody there?"), noise_pcm(1000, -45), Encoding.PCM16),
    ):
        assert loud_share(audio, encoding) > 0.3
        assert loud_share(noise, encoding) < 0.01
    assert loud_share(b"", Encoding.MULAW) == 0.0
