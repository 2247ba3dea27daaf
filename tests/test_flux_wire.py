"""Flux without sockets: what is asked for, what is understood, and how reports become turns."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from providers.base import MULAW_8K, PCM_8K, PCM_16K, AudioFormat, NativeTurn, TurnMoment
from providers.deepgram.flux_turns import FluxTurns
from providers.deepgram.flux_wire import (
    Connected,
    FluxError,
    FluxWarning,
    TurnInfo,
    Word,
    listen_url,
    parse,
)
from providers.deepgram.messages import Unreadable
from providers.socket import AudioFeed, RetryPolicy
from tests.simulators.deepgram_flux import query_problem
from wire.config import FluxStt

START, UPDATE, EAGER, RESUMED, END = TurnMoment


def asked(config: FluxStt, audio: AudioFormat = MULAW_8K) -> dict[str, list[str]]:
    """The query, which the strict simulator must find nothing wrong with."""
    url = urlsplit(listen_url("wss://flux.example/", config, audio))
    assert (url.scheme, url.netloc, url.path) == ("wss", "flux.example", "/v2/listen")
    query = parse_qs(url.query, keep_blank_values=True)
    assert query_problem(query) is None
    return query


# --- the query ---


@pytest.mark.proves("row-85")
def test_defaults_ask_for_eager_ends() -> None:
    assert asked(FluxStt()) == {
        "model": ["flux-general-en"],
        "encoding": ["mulaw"],
        "sample_rate": ["8000"],
        "eot_threshold": ["0.7"],
        "eager_eot_threshold": ["0.5"],
        "eot_timeout_ms": ["1000"],
    }


@pytest.mark.proves("row-85")
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ((0.5, 0.7, 2000), ("0.5", "0.5", "2000")),
        ((0.0, 0.0, 0), ("0.5", "0.3", "500")),
        ((2.0, 2.0, 999_999), ("1", "0.9", "60000")),
        ((0.9, 0.85, 10_000), ("0.9", "0.85", "10000")),
    ],
)
def test_thresholds_are_moved_into_what_flux_takes(given: tuple[float, float, int], sent: tuple[str, str, str]) -> None:
    query = asked(FluxStt(eot_threshold=given[0], eager_eot_threshold=given[1], eot_timeout_ms=given[2]))
    names = ("eot_threshold", "eager_eot_threshold", "eot_timeout_ms")
    assert tuple(query[name][0] for name in names) == sent


def test_eager_can_be_switched_off() -> None:
    assert "eager_eot_threshold" not in asked(FluxStt(eager_eot_threshold=None))


@pytest.mark.proves("row-85")
@pytest.mark.parametrize(
    ("language", "hint", "model", "hints"),
    [
        ("en", None, "flux-general-en", None),
        ("en-GB", None, "flux-general-en", None),
        ("en", "en-US", "flux-general-en", None),
        ("es", None, "flux-general-multi", ["es"]),
        ("es-AR", None, "flux-general-multi", ["es"]),
        ("multi", None, "flux-general-multi", None),
        ("multi", "es", "flux-general-multi", ["es"]),
        ("en", "es", "flux-general-multi", ["en", "es"]),
    ],
)
def test_the_language_chooses_model_and_hints(
    language: str, hint: str | None, model: str, hints: list[str] | None
) -> None:
    query = asked(FluxStt(language=language, language_hint=hint))
    assert query["model"] == [model]
    assert query.get("language_hint") == hints


@pytest.mark.proves("row-86")
def test_keyterms_are_sent_one_by_one_as_written() -> None:
    query = asked(FluxStt(keyterms=("Pinecall", "Café Müller & Söhne", " ", "50%+")))
    assert query["keyterm"] == ["Pinecall", "Café Müller & Söhne", "50%+"]


@pytest.mark.proves("row-86")
def test_a_keyterm_cannot_smuggle_parameters() -> None:
    query = asked(FluxStt(keyterms=("a&eot_threshold=9",)))
    assert query["keyterm"] == ["a&eot_threshold=9"]
    assert query["eot_threshold"] == ["0.7"]


@pytest.mark.parametrize(("audio", "encoding", "rate"), [(PCM_8K, "linear16", "8000"), (PCM_16K, "linear16", "16000")])
def test_sixteen_bit_audio_is_named(audio: AudioFormat, encoding: str, rate: str) -> None:
    query = asked(FluxStt(), audio)
    assert (query["encoding"], query["sample_rate"]) == ([encoding], [rate])


# --- the messages ---


def test_messages_are_read_with_what_older_deployments_leave_out() -> None:
    info = parse('{"type":"TurnInfo","event":"Update","words":[{"word":"hi","confidence":0.5}],"new_field":1}')
    assert info == TurnInfo("Update", words=(Word("hi", 0.5),))
    assert parse('{"type":"Connected","request_id":"r","sequence_id":0}') == Connected("r")
    assert parse('{"type":"Warning","code":"C","description":"d"}') == FluxWarning("C", "d")
    assert parse('{"type":"Error","code":"C","description":"d"}') == FluxError("C", "d")


def test_unknown_types_are_ignored() -> None:
    assert parse('{"type":"Telemetry","event":3}') is None


@pytest.mark.parametrize("garbage", ["", "{", "[]", '{"event":"Update"}', '{"type":"TurnInfo","event":7}', b"\xff\xfe"])
def test_garbage_is_named_as_such(garbage: str | bytes) -> None:
    with pytest.raises(Unreadable):
        parse(garbage)


# --- the turns ---


def turns() -> FluxTurns:
    return FluxTurns(eot_timeout_s=1.0, default_language="en")


def info(event: str, text: str = "", *, at: float = 0.0, turn: int = 0, timed: bool = True) -> TurnInfo:
    """A report at second `at`, whose words take 0.5 s each and end there."""
    said = text.split()
    first = at - 0.5 * len(said)
    spoken = tuple(
        Word(word, 0.9, first + 0.5 * place, first + 0.5 * place + 0.5) if timed else Word(word, 0.9)
        for place, word in enumerate(said)
    )
    return TurnInfo(event, turn, at, text, spoken)


def told(machine: FluxTurns, *reports: TurnInfo) -> list[tuple[TurnMoment, str]]:
    return [(moment.moment, moment.text) for report in reports for moment in machine.take(report)]


def test_a_turn_goes_from_start_over_eager_to_end() -> None:
    assert told(
        turns(),
        info("Update"),
        info("StartOfTurn", "book"),
        info("Update", "book"),
        info("Update", "book a"),
        info("EagerEndOfTurn", "book a table"),
        info("Update", "book a table"),
        info("EndOfTurn", "book a table"),
    ) == [(START, "book"), (UPDATE, "book a"), (EAGER, "book a table"), (END, "book a table")]


def test_an_update_with_text_opens_a_turn_that_has_no_start() -> None:
    assert told(turns(), info("Update", "hello"), info("StartOfTurn", "hello")) == [(START, "hello")]


def test_a_start_without_text_opens_the_turn() -> None:
    assert told(turns(), info("StartOfTurn"), info("Update", "hello")) == [(START, ""), (UPDATE, "hello")]


def test_text_never_changes_after_an_eager_end_without_a_resume() -> None:
    begun = (info("StartOfTurn", "book"), info("EagerEndOfTurn", "book"))
    opened = [(START, "book"), (EAGER, "book")]
    assert told(turns(), *begun, info("TurnResumed", "book a")) == [*opened, (RESUMED, "book a")]
    assert told(turns(), *begun, info("Update", "book a")) == [*opened, (RESUMED, "book a")]
    assert told(turns(), *begun, info("EndOfTurn", "book it")) == [*opened, (RESUMED, "book it"), (END, "book it")]


def test_turns_are_numbered_over_the_call_and_a_missed_end_is_made_up_for() -> None:
    machine = turns()
    reports = (info("StartOfTurn", "one"), info("StartOfTurn", "two", turn=1), info("EndOfTurn", "two", turn=1))
    seen = [(m.moment, m.turn_index) for report in reports for m in machine.take(report)]
    assert seen == [(START, 0), (END, 0), (START, 1), (END, 1)]


def test_events_that_are_new_to_us_are_updates() -> None:
    assert told(turns(), info("StartOfTurn", "a"), info("Sneeze", "a b")) == [(START, "a"), (UPDATE, "a b")]


def test_confidence_probability_and_language_are_passed_on() -> None:
    report = TurnInfo(
        "EndOfTurn",
        0,
        1.0,
        "hola sí",
        (Word("hola", 0.8), Word("sí", 0.6)),
        end_of_turn_confidence=0.83,
        languages=("es",),
    )
    start, end = turns().take(report)
    assert start.moment is START
    assert end == NativeTurn(END, "hola sí", 0, probability=0.83, confidence=end.confidence, language="es")
    assert end.confidence == pytest.approx(0.7)


# --- over two connections ---


def test_a_reconnect_keeps_old_words_and_repeats_none() -> None:
    machine = turns()
    told(machine, info("StartOfTurn", "I want", at=2.0), info("Update", "I want to book a table", at=4.0))
    assert machine.rewind(earliest=2.5) == 2.5
    machine.restart(replayed_s=1.5)
    assert told(machine, info("Update", at=0.2), info("StartOfTurn", "book a table for", at=2.0)) == [
        (UPDATE, "I want to book a table for")
    ]
    assert told(machine, info("EndOfTurn", "book a table for two", at=3.0)) == [(END, "I want to book a table for two")]


def test_without_word_times_only_unheard_audio_is_repeated() -> None:
    machine = turns()
    told(machine, info("StartOfTurn", "I want", at=4.0, timed=False))
    assert machine.rewind(earliest=1.5) == 4.0
    machine.restart(replayed_s=0.5)
    assert told(machine, info("StartOfTurn", "a table", at=1.0, timed=False)) == [(UPDATE, "I want a table")]


def test_audio_of_an_ended_turn_is_not_repeated() -> None:
    machine = turns()
    told(machine, info("StartOfTurn", "yes", at=1.0), info("EndOfTurn", "yes", at=2.0), info("Update", at=2.5, turn=1))
    assert machine.rewind(earliest=0.0) == 2.0


def test_an_open_turn_ends_when_the_new_connection_hears_no_more_of_it() -> None:
    machine = turns()
    told(machine, info("StartOfTurn", "that is all", at=2.0))
    machine.rewind(earliest=0.0)
    machine.restart(replayed_s=0.6)
    assert told(machine, info("Update", at=1.5)) == []
    assert told(machine, info("Update", at=1.7)) == [(END, "that is all")]
    assert told(machine, info("StartOfTurn", "hello", at=3.0)) == [(START, "hello")]


def test_a_connection_that_breaks_again_at_once_loses_no_words() -> None:
    machine = turns()
    told(machine, info("StartOfTurn", "I want to", at=2.0))
    machine.rewind(earliest=1.2)
    machine.restart(replayed_s=0.8)
    assert machine.rewind(earliest=-1.0) == 0.0
    machine.restart(replayed_s=0.8)
    assert told(machine, info("StartOfTurn", "want to book", at=1.0)) == [(UPDATE, "I want to book")]


# --- the audio on its way ---


def test_a_full_backlog_drops_the_oldest_unsent_audio() -> None:
    feed = AudioFeed(PCM_8K, backlog=0.001, replay=0.001)
    feed.append(bytes(range(20)))
    assert feed.take(100) == bytes(range(4, 20))
    assert feed.dropped == 4


def test_sent_audio_can_be_sent_again_as_far_as_it_is_kept() -> None:
    feed = AudioFeed(MULAW_8K, backlog=1, replay=0.001)
    feed.append(bytes(range(20)))
    assert feed.take(6) == bytes(range(6))
    assert feed.take(6) == bytes(range(6, 12))
    assert (feed.earliest, feed.position) == (4, 12)
    assert feed.rewind(0) == 8
    assert feed.take(100) == bytes(range(4, 20))


def test_retry_delays_double_up_to_their_limit_and_spread_downwards() -> None:
    policy = RetryPolicy(attempts=5, first_delay=0.2, max_delay=1.0)
    assert [policy.delay(failed, 1.0) for failed in (1, 2, 3, 4)] == [0.2, 0.4, 0.8, 1.0]
    assert policy.delay(2, 0.0) == 0.2
