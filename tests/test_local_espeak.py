from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import numpy as np
import pytest

from providers.base import SpeechChunk
from providers.errors import Garbled, Refused, TimedOut, Unavailable
from providers.local import espeak
from providers.local.espeak import FORMAT, EspeakSpeech, EspeakStream
from wire.config import LocalVoice


async def speak(engine: EspeakSpeech, *texts: str) -> list[SpeechChunk]:
    stream = engine.open()
    for text in texts:
        await stream.push(text)
    await stream.finish()
    return [chunk async for chunk in stream.chunks()]


def program(folder: Path, script: str) -> str:
    path = folder / "espeak-ng"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def loud(pcm: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    return np.flatnonzero(np.abs(np.frombuffer(pcm, dtype=np.int16)) > 200)


async def test_text_becomes_audible_speech_of_a_plausible_length() -> None:
    [chunk] = await speak(EspeakSpeech(LocalVoice()), "Good evening, how can I help you? ")
    assert 1200 < FORMAT.duration_ms(len(chunk.audio)) < 3500
    assert len(loud(chunk.audio)) > 5000


async def test_speech_begins_at_once() -> None:
    [chunk] = await speak(EspeakSpeech(LocalVoice()), "Good evening.")
    assert loud(chunk.audio)[0] < FORMAT.rate * 0.06


async def test_words_are_spread_over_what_sounds_and_pieces_follow_each_other() -> None:
    one, two = await speak(EspeakSpeech(LocalVoice()), "A table for four. ", "On Friday?")
    assert [timed.word for timed in (*one.words, *two.words)] == ["A", "table", "for", "four.", "On", "Friday?"]
    assert one.words[0].start_ms == 0
    first = FORMAT.duration_ms(len(one.audio))
    assert first - 400 < one.words[-1].end_ms <= first
    assert two.words[0].start_ms == pytest.approx(first, abs=1)


async def test_pieces_come_in_order_though_the_first_takes_longer(tmp_path: Path) -> None:
    slow = program(tmp_path, 'read -r line; case $line in one*) sleep 0.1;; esac; echo "$line" | espeak-ng "$@"')
    chunks = await speak(EspeakSpeech(LocalVoice(), slow), "one ", "two ", "three")
    assert [chunk.words[0].word for chunk in chunks] == ["one", "two", "three"]


async def test_a_faster_voice_takes_less_time_and_another_voice_sounds_different() -> None:
    text = "I have put your name on the list for Friday evening."
    [plain], [fast], [other] = await asyncio.gather(
        speak(EspeakSpeech(LocalVoice()), text),
        speak(EspeakSpeech(LocalVoice(speed=1.6)), text),
        speak(EspeakSpeech(LocalVoice(voice_id="en-us+f3")), text),
    )
    assert len(fast.audio) < 0.8 * len(plain.audio)
    assert other.audio != plain.audio


@pytest.mark.parametrize(("language", "same_as"), [("es-ES", "es"), ("fr", "fr-fr"), ("tlh", "en"), ("../en", "en")])
async def test_a_language_finds_its_voice_and_an_unknown_one_falls_back_to_english(language: str, same_as: str) -> None:
    [asked] = await speak(EspeakSpeech(LocalVoice(language=language)), "la mesa")
    [expected] = await speak(EspeakSpeech(LocalVoice(voice_id=same_as)), "la mesa")
    assert asked.audio == expected.audio


@pytest.mark.parametrize("voice", ["nobody", "../../etc/passwd", "-w", "en us"])
async def test_an_unknown_voice_is_refused(voice: str) -> None:
    with pytest.raises(Refused, match="voice"):
        await speak(EspeakSpeech(LocalVoice(voice_id=voice)), "hello")


async def test_nothing_to_say_says_nothing() -> None:
    assert await speak(EspeakSpeech(LocalVoice()), " ", "\n") == []


async def test_the_text_never_shows_on_the_command_line(tmp_path: Path) -> None:
    spy = program(tmp_path, f'echo "$@" > {tmp_path}/arguments; exec espeak-ng "$@"')
    await speak(EspeakSpeech(LocalVoice(), spy), "--version; my secret")
    assert "secret" not in (tmp_path / "arguments").read_text()


async def test_a_missing_program_names_the_package_to_install() -> None:
    with pytest.raises(Refused, match="apt-get install espeak-ng"):
        await speak(EspeakSpeech(LocalVoice(), "/nowhere/espeak-ng"), "hello")
    await EspeakSpeech(LocalVoice(), "/nowhere/espeak-ng").warm()


async def test_a_program_that_fails_or_babbles_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="out of breath"):
        await speak(EspeakSpeech(LocalVoice(), program(tmp_path, "echo out of breath >&2; exit 3")), "hello")
    with pytest.raises(Garbled):
        await speak(EspeakSpeech(LocalVoice(), program(tmp_path, "echo this is no sound")), "hello")


def hanging(folder: Path) -> str:
    return program(folder, f"echo $$ >> {folder}/pid; exec sleep 30")


def alive(folder: Path) -> list[str]:
    pids = (folder / "pid").read_text().split()
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


async def test_a_program_that_hangs_is_killed_at_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeak, "DEADLINE", 0.15)
    with pytest.raises(TimedOut):
        await speak(EspeakSpeech(LocalVoice(), hanging(tmp_path)), "hello")
    assert alive(tmp_path) == []


async def collect(stream: EspeakStream) -> list[SpeechChunk]:
    return [chunk async for chunk in stream.chunks()]


async def test_cancel_ends_the_reader_and_kills_the_process(tmp_path: Path) -> None:
    engine = EspeakSpeech(LocalVoice(), hanging(tmp_path))
    stream = engine.open()
    await stream.push("hello")
    reader = asyncio.ensure_future(collect(stream))
    async with asyncio.timeout(5):
        while not (tmp_path / "pid").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
    await stream.cancel()
    assert await reader == []
    assert alive(tmp_path) == []
    await stream.cancel()
    await stream.push("too late")
    await engine.aclose()


async def test_after_cancel_no_piece_that_was_ready_is_heard() -> None:
    engine = EspeakSpeech(LocalVoice())
    stream = engine.open()
    await stream.push("one")
    await stream.push("two")
    reader = stream.chunks()
    await anext(reader)
    await asyncio.sleep(0.1)
    await engine.aclose()
    assert [chunk async for chunk in reader] == []
