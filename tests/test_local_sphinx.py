from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipelines.audio import ulaw
from pipelines.audio.resample import Resampler
from providers.base import Transcript
from providers.errors import Refused, Unavailable
from providers.local import sphinx_process
from providers.local.sphinx import LocalSpeechToText
from providers.local.sphinx_process import MAX_BEHIND, SphinxProcess
from providers.local.sphinx_worker import MAX_BENCHES
from tests.speech import frames, noise_pcm, say_mulaw, silence_mulaw, silence_pcm
from wire.config import LocalStt

BOOKING = (Path(__file__).parents[1] / "demo" / "booking.jsgf").read_text()
HEAD = "#JSGF V1.0;\ngrammar g;\n"


@pytest.fixture
async def process() -> AsyncIterator[SphinxProcess]:
    one = SphinxProcess()
    yield one
    await one.aclose()


def say(ears: LocalSpeechToText, text: str) -> None:
    """`text` over a telephone, 20 ms at a time."""
    up = Resampler(8000, 16000)
    for frame in frames(silence_mulaw(500) + say_mulaw(text) + silence_mulaw(350)):
        ears.feed(up.process(ulaw.decode(frame)))


async def final(events: AsyncIterator[object]) -> tuple[str, list[str]]:
    """The segment's final text and the interims before it."""
    interims: list[str] = []
    async with asyncio.timeout(20):
        while True:
            event = await anext(events)
            assert isinstance(event, Transcript)
            if event.is_final:
                return event.text, interims
            interims.append(event.text)


def in_proc(pid: int | None) -> Path:
    return Path(f"/proc/{pid}")


def gone(pid: int | None) -> bool:
    return not in_proc(pid).exists()


def environment(pid: int | None) -> bytes:
    return (in_proc(pid) / "environ").read_bytes()


async def opened(process: SphinxProcess, config: LocalStt) -> LocalSpeechToText:
    ears = LocalSpeechToText(config, process)
    await ears.start()
    return ears


@pytest.mark.parametrize(
    "line",
    [
        "hello i would like to book a table",
        "i would like to book a table for two people on friday at eight",
        "for four people",
        "on saturday",
        "tomorrow at eight",
        "yes please",
        "no thank you",
        "thank you goodbye",
    ],
)
async def test_the_demos_lines_are_understood_over_a_telephone(process: SphinxProcess, line: str) -> None:
    ears = await opened(process, LocalStt(grammar=BOOKING))
    say(ears, line)
    ears.finalize()
    assert (await final(ears.events()))[0] == line
    await ears.aclose()


async def test_segments_follow_each_other_and_interims_grow_into_the_final_text(process: SphinxProcess) -> None:
    ears = await opened(process, LocalStt(grammar=BOOKING))
    events = ears.events()
    for line in ("hello i would like to book a table", "for four people"):
        say(ears, line)
        ears.finalize()
        text, interims = await final(events)
        assert text == line
        assert interims[-1] == line
        assert len(interims) == len(set(interims))
    await ears.aclose()


async def test_a_segment_without_words_ends_with_an_empty_final(process: SphinxProcess) -> None:
    ears = await opened(process, LocalStt(grammar=BOOKING))
    events = ears.events()
    ears.finalize()
    assert await final(events) == ("", [])
    ears.feed(silence_pcm(3000))
    ears.finalize()
    assert await final(events) == ("", [])
    await ears.aclose()


async def test_calls_with_their_own_grammars_do_not_hear_each_other(process: SphinxProcess) -> None:
    one = await opened(process, LocalStt(grammar=HEAD + "public <a> = yes please | on friday;"))
    other = await opened(process, LocalStt(keyterms=("for four people", "on friday", "zxqy")))
    up, also = Resampler(8000, 16000), Resampler(8000, 16000)
    spoken = silence_mulaw(400) + say_mulaw("yes please") + silence_mulaw(800)
    phrases = silence_mulaw(400) + say_mulaw("for four people on friday") + silence_mulaw(800)
    for ours, theirs in zip(frames(spoken), frames(phrases), strict=False):
        one.feed(up.process(ulaw.decode(ours)))
        other.feed(also.process(ulaw.decode(theirs)))
    for rest in frames(phrases)[len(frames(spoken)) :]:
        other.feed(also.process(ulaw.decode(rest)))
    one.finalize()
    other.finalize()
    assert (await final(one.events()))[0] == "yes please"
    assert (await final(other.events()))[0] == "for four people on friday"
    await one.aclose()
    await other.aclose()


async def test_more_callers_than_decoders_are_all_understood(process: SphinxProcess) -> None:
    calls = [await opened(process, LocalStt(grammar=BOOKING)) for _ in range(MAX_BENCHES + 2)]
    for ears in calls:
        say(ears, "yes please")
    for ears in reversed(calls):
        ears.finalize()
    assert [(await final(ears.events()))[0] for ears in calls] == ["yes please"] * len(calls)
    for ears in calls:
        await ears.aclose()


async def test_the_open_vocabulary_hears_some_of_the_words(process: SphinxProcess) -> None:
    ears = await opened(process, LocalStt())
    say(ears, "on friday")
    ears.finalize()
    assert "friday" in (await final(ears.events()))[0]
    await ears.aclose()


async def test_silence_is_never_sent_to_the_recogniser() -> None:
    class Spy(SphinxProcess):
        heard = 0

        def hear(self, line: sphinx_process.Line, pcm: bytes) -> None:
            self.heard += len(pcm)

    spy = Spy()
    ears = await opened(spy, LocalStt(grammar=BOOKING))
    ears.feed(noise_pcm(10_000, -58))
    ears.finalize()
    assert spy.heard == 0
    await ears.aclose()
    await spy.aclose()


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("hello", "must begin"),
        (HEAD + "public <a> = zxqy;", "does not know: zxqy"),
    ],
)
async def test_a_bad_grammar_is_refused_at_the_start_and_disturbs_nobody(
    process: SphinxProcess, grammar: str, message: str
) -> None:
    other = await opened(process, LocalStt(grammar=BOOKING))
    with pytest.raises(Refused, match=message) as raised:
        await opened(process, LocalStt(grammar=grammar))
    assert raised.value.code == "CONFIG_ERROR"
    say(other, "yes please")
    other.finalize()
    assert (await final(other.events()))[0] == "yes please"
    await other.aclose()


async def test_a_grammar_that_only_the_recogniser_finds_bad_is_refused_too(process: SphinxProcess) -> None:
    with pytest.raises(Refused, match="refuses the grammar"):
        await process.open(HEAD + "public <a> = ;", lambda text, final: None, lambda error: None)


async def test_a_recogniser_that_dies_fails_its_calls_and_the_next_call_gets_a_new_one(process: SphinxProcess) -> None:
    ears = await opened(process, LocalStt(grammar=BOOKING))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(Unavailable, match="died"):
        await final(ears.events())
    ears.feed(noise_pcm(200, -20))
    ears.finalize()
    await ears.aclose()
    again = await opened(process, LocalStt(grammar=BOOKING))
    say(again, "yes please")
    again.finalize()
    assert (await final(again.events()))[0] == "yes please"
    await again.aclose()


async def test_a_recogniser_that_stands_still_costs_bounded_memory(process: SphinxProcess) -> None:
    line = await process.open(BOOKING, lambda text, final: None, lambda error: None)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    second = noise_pcm(1000, -20)
    for _ in range(MAX_BEHIND // len(second)):
        process.hear(line, second)
    assert process.dropped == 0
    for _ in range(10):
        process.hear(line, second)
    assert 5 <= process.dropped <= 10


async def test_closing_ends_the_events_and_the_process_leaves(process: SphinxProcess) -> None:
    ears = await opened(process, LocalStt(grammar=BOOKING))
    pid = process.pid
    await ears.aclose()
    await ears.aclose()
    assert [event async for event in ears.events()] == []
    await process.aclose()
    assert process.pid is None
    assert gone(pid)


async def test_calls_of_one_loop_share_one_process() -> None:
    one, other = LocalSpeechToText(LocalStt(grammar=BOOKING)), LocalSpeechToText(LocalStt(grammar=BOOKING))
    await asyncio.gather(one.start(), other.start())
    pid = sphinx_process.shared().pid
    assert pid is not None
    await one.aclose()
    await other.aclose()
    await sphinx_process.aclose_shared()
    assert gone(pid)


async def test_the_recogniser_gets_none_of_our_keys(process: SphinxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    ears = await opened(process, LocalStt(grammar=BOOKING))
    assert b"sk-secret" not in environment(process.pid)
    await ears.aclose()
