"""When the mouth hands speech to the line."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from benchmarks.phone_engines import Voice
from pipelines.clock import LoopClock
from pipelines.events import CallEvents
from pipelines.metronome import Metronome
from pipelines.speaking.mouth import Mouth
from pipelines.speaking.utterance import Origin, Utterance
from providers.base import MULAW_8K
from providers.errors import ProviderError
from tests.virtual_time import event_loop_policy as event_loop_policy


class Line:
    """A medium that notes when audio came, and echoes marks when they are played."""

    audio = MULAW_8K

    def __init__(self, delay: float) -> None:
        self.mouth: Mouth | None = None
        self._delay = delay
        self.came: list[float] = []
        self._ends = 0.0

    def send_audio(self, audio: bytes) -> None:
        now = asyncio.get_running_loop().time()
        self.came.append(now)
        self._ends = max(self._ends, now) + len(audio) / 8000

    def send_mark(self, name: str) -> None:
        assert self.mouth is not None
        asyncio.get_running_loop().call_at(self._ends + self._delay, self.mouth.on_mark, name)

    def send_clear(self) -> None:
        raise AssertionError("nobody interrupts here")

    async def hang_up(self) -> None:
        raise AssertionError("nobody hangs up here")


class Listener:
    """A call that lets everything be said and waits for silence."""

    def __init__(self) -> None:
        self.silent = asyncio.Event()

    def may_play(self, utterance: Utterance) -> bool:
        return True

    def on_audible(self, utterance: Utterance) -> None: ...

    def on_reached(self, utterance: Utterance) -> None: ...

    def on_record(self, utterance: Utterance, heard: str) -> None: ...

    def on_silent(self) -> None:
        self.silent.set()

    def on_mouth_trouble(self, error: ProviderError) -> None:
        raise error


@pytest.mark.parametrize("delay", [0.007, 0.025, 0.05])
@pytest.mark.parametrize("start", [0.003, 0.0133, 0.018])
async def test_echoes_do_not_disturb_the_pacing_of_what_is_being_said(start: float, delay: float) -> None:
    clock, line, listener = LoopClock(), Line(delay), Listener()
    mouth = line.mouth = Mouth(line, CallEvents("CA1", clock), clock, listener)
    mouth.use_voice(Voice(bytes(3200)))
    metronome = Metronome(clock)
    metronome.join(mouth, mouth.beat)
    async with asyncio.TaskGroup() as tasks:
        speaking = tasks.create_task(mouth.run(tasks))
        await asyncio.sleep(start)
        speech = Utterance("m1", "", Origin.CLIENT, remembered=False)
        speech.write("One two three four five six seven eight nine ten eleven twelve. " * 3)
        speech.close()
        mouth.enqueue(speech)
        async with asyncio.timeout(60):
            await listener.silent.wait()
        speaking.cancel()
    metronome.close()
    assert len(line.came) > 200
    gaps = [later - earlier for earlier, later in pairwise(line.came[4:-1])]
    assert gaps == pytest.approx([0.06] * len(gaps), abs=0.001)
