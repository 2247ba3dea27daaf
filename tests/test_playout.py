"""Pacing of speech, and what was heard of it, against a far end that really plays, late and unevenly."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.speaking.playout import Audio, Cleared, Mark, Playout, UtteranceState
from providers.base import MULAW_8K, PCM_16K, AudioFormat

LEAD = 0.180


@dataclass
class FarEnd:
    """Plays what arrives, `delay` seconds after it was sent, and echoes marks `delay` seconds after their moment."""

    audio: AudioFormat
    delay: float = 0.0
    free_at: float = 0.0
    spans: list[tuple[float, float, str, float]] = field(default_factory=list[tuple[float, float, str, float]])
    """When a chunk plays: from, to, of which utterance, at which of its seconds."""
    lengths: dict[str, float] = field(default_factory=dict[str, float])
    echoes: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    sent: list[Audio | Mark] = field(default_factory=list[Audio | Mark])

    def take(self, items: list[Audio | Mark], now: float) -> None:
        for item in items:
            self.sent.append(item)
            start = max(self.free_at, now + self.delay)
            if isinstance(item, Mark):
                heapq.heappush(self.echoes, (start + self.delay, item.name))
                continue
            seconds = self.audio.duration_ms(len(item.audio)) / 1000
            offset = self.lengths.get(item.utterance, 0.0)
            self.spans.append((start, start + seconds, item.utterance, offset))
            self.lengths[item.utterance] = offset + seconds
            self.free_at = start + seconds

    def played(self, utterance: str, now: float) -> float:
        """Seconds of it that have truly sounded."""
        heard = [
            offset + min(now, end) - start
            for start, end, name, offset in self.spans
            if name == utterance and start < now
        ]
        return max(heard, default=0.0)

    @property
    def audio_of(self) -> dict[str, bytes]:
        out: dict[str, bytes] = {}
        for item in self.sent:
            if isinstance(item, Audio):
                out[item.utterance] = out.get(item.utterance, b"") + item.audio
        return out

    @property
    def marks(self) -> list[str]:
        return [item.name for item in self.sent if isinstance(item, Mark)]


@dataclass
class Stage:
    """A playout and its far end, driven by a 20 ms tick."""

    playout: Playout
    far: FarEnd
    now: float = 100.0
    claims: dict[str, int] = field(default_factory=dict[str, int])
    finished: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.02)):
            self.tick(0.02)

    def tick(self, step: float) -> None:
        self.now += step
        while self.far.echoes and self.far.echoes[0][0] <= self.now:
            at, name = heapq.heappop(self.far.echoes)
            self.playout.echoed(name, max(at, self.now - step))
        self.far.take(self.playout.pull(self.now), self.now)
        assert self.far.free_at <= self.now + self.far.delay + LEAD + 1e-6
        for name in self.far.lengths:
            claim = self.playout.heard_ms(name, self.now)
            assert claim >= self.claims.get(name, 0)
            assert claim <= self.far.played(name, self.now) * 1000 + 1e-3
            self.claims[name] = claim
        self.finished += [(name, self.now) for name in self.playout.done(self.now)]


def _stage(audio: AudioFormat = MULAW_8K, delay: float = 0.0) -> Stage:
    return Stage(Playout(audio), FarEnd(audio, delay))


def _say(playout: Playout, name: str, seconds: float, audio: AudioFormat = MULAW_8K) -> None:
    playout.begin(name)
    playout.append(name, b"\x55" * round(seconds * audio.bytes_per_second))
    playout.finish(name)


@pytest.mark.parametrize("audio", [MULAW_8K, PCM_16K])
@pytest.mark.proves("row-77")
def test_all_audio_arrives_in_order_and_is_done_when_played(audio: AudioFormat) -> None:
    stage = _stage(audio, delay=0.08)
    for name, seconds in (("a", 1.3), ("b", 0.7)):
        _say(stage.playout, name, seconds, audio)
    stage.run(2.5)
    assert {name: len(data) for name, data in stage.far.audio_of.items()} == {
        "a": round(1.3 * audio.bytes_per_second),
        "b": round(0.7 * audio.bytes_per_second),
    }
    assert [name for name, _ in stage.finished] == ["a", "b"]
    assert stage.finished[0][1] == pytest.approx(100.02 + 1.3 + 0.16, abs=0.03)
    assert stage.finished[1][1] == pytest.approx(100.02 + 2.0 + 0.16, abs=0.03)
    assert stage.playout.state("b") is UtteranceState.HEARD
    assert not stage.playout.unconfirmed("b")
    assert stage.playout.heard_ms("a", stage.now) == 1300


def test_marks_are_half_a_second_apart_and_exactly_one_closes_an_utterance() -> None:
    stage = _stage()
    _say(stage.playout, "a", 2.0)
    stage.run(2.5)
    position, marks = 0.0, list[tuple[int, str]]()
    for item in stage.far.sent:
        if isinstance(item, Audio):
            position += MULAW_8K.duration_ms(len(item.audio))
        else:
            marks.append((round(position), item.name))
    assert len({name for _, name in marks}) == len(marks)
    positions = [at for at, _ in marks]
    assert positions[0] == 20
    assert positions[-1] == 2000
    assert positions.count(2000) == 1
    assert all(500 <= b - a <= 560 for a, b in pairwise(positions[:-1]))


def test_first_audio_leaves_at_once_and_small_then_the_lead_fills() -> None:
    playout = Playout(MULAW_8K)
    _say(playout, "a", 1.0)
    out = playout.pull(5.0)
    assert isinstance(out[0], Audio)
    assert len(out[0].audio) == 160
    assert sum(len(item.audio) for item in out if isinstance(item, Audio)) <= 8 * 180
    assert playout.pull(5.0) == []
    due = playout.next_due(5.0)
    assert due is not None
    assert playout.pull(due - 0.001) == []
    assert len(playout.pull(due)) == 1


def test_a_beat_that_falls_on_the_due_moment_and_trembles_does_not_shake_the_pacing() -> None:
    playout, trembling = Playout(MULAW_8K), random.Random(1)
    playout.begin("u")
    playout.append("u", bytes(8000 * 20))
    playout.pull(0.0)
    sent: list[float] = []
    for beat in range(1, 500):
        now = beat * 0.02 + trembling.uniform(-0.0015, 0.0015)
        sent += [now for item in playout.pull(now) if isinstance(item, Audio)]
    assert len(sent) > 150
    assert all(0.056 < later - earlier < 0.064 for earlier, later in pairwise(sent[3:]))


def test_final_mark_goes_out_with_the_last_byte_even_when_finish_comes_late() -> None:
    playout = Playout(MULAW_8K)
    playout.begin("a")
    playout.append("a", bytes(160))
    assert [type(item) for item in playout.pull(1.0)] == [Audio, Mark]
    assert playout.next_due(1.0) == pytest.approx(1.02 + 2.0)
    playout.finish("a")
    assert playout.next_due(1.0) == 1.0
    assert [type(item) for item in playout.pull(1.0)] == [Mark]
    assert playout.state("a") is UtteranceState.SENT


def test_nothing_is_due_when_there_is_nothing_to_say() -> None:
    playout = Playout(MULAW_8K)
    assert playout.next_due(1.0) is None
    playout.begin("a")
    assert playout.next_due(1.0) is None
    assert playout.pull(1.0) == []


def test_later_utterance_waits_for_the_earlier_one_to_be_finished() -> None:
    playout = Playout(MULAW_8K)
    playout.begin("a")
    _say(playout, "b", 0.1)
    assert playout.pull(1.0) == []
    assert playout.state("b") is UtteranceState.WAITING
    playout.finish("a")
    out = playout.pull(1.0)
    assert isinstance(out[0], Mark)
    assert isinstance(out[1], Audio)
    assert out[1].utterance == "b"


def test_samples_are_never_split() -> None:
    playout = Playout(PCM_16K)
    playout.begin("a")
    sent = 0
    for now, size in enumerate((1, 1, 3, 641, 7)):
        playout.append("a", bytes(size))
        for item in playout.pull(float(now)):
            if isinstance(item, Audio):
                assert len(item.audio) % 2 == 0
                sent += len(item.audio)
    playout.finish("a")
    assert [type(item) for item in playout.pull(9.0)] == [Mark]
    assert sent == 652


@pytest.mark.proves("row-76")
def test_heard_never_runs_ahead_of_the_far_end_and_lags_little() -> None:
    stage = _stage(delay=0.12)
    _say(stage.playout, "a", 3.0)
    for _ in range(140):
        stage.tick(0.02)
        truth = stage.far.played("a", stage.now) * 1000
        assert stage.playout.heard_ms("a", stage.now) >= truth - 2 * 120 - 60


def test_heard_starts_again_correctly_after_the_audio_ran_dry() -> None:
    stage = _stage(delay=0.05)
    stage.playout.begin("a")
    stage.playout.append("a", bytes(8 * 300))
    stage.run(2.0)
    assert stage.playout.heard_ms("a", stage.now) == 300
    stage.playout.append("a", bytes(8 * 400))
    stage.run(0.2)
    assert 300 < stage.playout.heard_ms("a", stage.now) <= 300 + 200
    stage.playout.finish("a")
    stage.run(0.6)
    assert [name for name, _ in stage.finished] == ["a"]


def test_an_echo_from_before_a_pause_does_not_vouch_for_what_follows_it() -> None:
    stage = _stage(delay=0.15)
    stage.playout.begin("a")
    for _ in range(3):
        stage.playout.append("a", bytes(8 * 40))
        stage.run(0.28)


def test_without_echoes_heard_stays_before_the_open_mark() -> None:
    playout = Playout(MULAW_8K)
    _say(playout, "a", 3.0)
    marks = [item.name for item in playout.pull(0.0) if isinstance(item, Mark)]
    assert playout.heard_ms("a", 0.15) == 0
    playout.echoed(marks[0], 0.15)
    assert playout.heard_ms("a", 0.25) == 120


def test_an_echo_vouches_for_the_lost_ones_before_it() -> None:
    playout = Playout(MULAW_8K)
    _say(playout, "a", 0.1)
    _say(playout, "b", 0.05)
    marks = [item.name for item in playout.pull(0.0) if isinstance(item, Mark)]
    playout.echoed(marks[-1], 0.2)
    assert playout.done(0.2) == ["a", "b"]
    playout.echoed(marks[0], 0.3)
    assert playout.done(0.3) == []


def test_overdue_echo_counts_as_heard_but_unconfirmed() -> None:
    playout = Playout(MULAW_8K)
    _say(playout, "a", 0.1)
    playout.pull(10.0)
    assert playout.done(12.09) == []
    due = playout.next_due(12.09)
    assert due == pytest.approx(12.1, abs=0.03)
    assert playout.done(12.11) == ["a"]
    assert playout.unconfirmed("a")
    assert playout.heard_ms("a", 12.11) == 100
    assert playout.next_due(12.11) is None


@pytest.mark.proves("row-78")
def test_clear_tells_what_was_heard_and_what_never_was() -> None:
    stage = _stage(delay=0.03)
    for name in ("a", "b", "c"):
        _say(stage.playout, name, 2.0)
    stage.run(1.0)
    cleared = stage.playout.clear(stage.now)
    assert cleared.playing == "a"
    assert cleared.heard_ms == pytest.approx(960, abs=60)
    assert cleared.dropped == ("b", "c")
    assert stage.playout.pull(stage.now + 1) == []
    assert stage.playout.next_due(stage.now + 1) is None
    assert stage.playout.state("a") is UtteranceState.CLEARED
    assert stage.playout.heard_ms("a", stage.now + 5) == cleared.heard_ms
    stage.playout.append("a", bytes(800))
    assert stage.playout.unsent_ms == 0


def test_an_utterance_sent_ahead_but_not_heard_is_dropped_not_playing() -> None:
    playout = Playout(MULAW_8K)
    _say(playout, "a", 0.06)
    _say(playout, "b", 1.0)
    playout.pull(0.0)
    assert playout.state("b") is UtteranceState.PLAYING
    cleared = playout.clear(0.04)
    assert (cleared.playing, cleared.dropped) == ("a", ("b",))
    assert playout.heard_ms("b", 0.04) == 0


def test_marks_echoed_by_a_clear_mean_nothing() -> None:
    playout = Playout(MULAW_8K)
    _say(playout, "a", 0.1)
    marks = [item.name for item in playout.pull(0.0) if isinstance(item, Mark)]
    playout.clear(0.05)
    _say(playout, "b", 1.0)
    playout.pull(0.05)
    for name in marks:
        playout.echoed(name, 0.06)
    assert playout.done(0.06) == []
    assert playout.heard_ms("a", 0.06) <= 20
    assert playout.heard_ms("b", 0.06) <= 20


def test_what_was_heard_before_a_clear_is_still_reported_as_done() -> None:
    playout = Playout(MULAW_8K)
    _say(playout, "a", 0.1)
    marks = [item.name for item in playout.pull(0.0) if isinstance(item, Mark)]
    playout.echoed(marks[-1], 0.1)
    assert playout.clear(0.2) == Cleared(None, 0, ())
    assert playout.done(0.2) == ["a"]


def test_speech_goes_on_at_once_after_a_clear() -> None:
    stage = _stage()
    _say(stage.playout, "a", 5.0)
    stage.run(1.0)
    stage.playout.clear(stage.now)
    stage.far.free_at = stage.now
    stage.far.echoes.clear()
    _say(stage.playout, "b", 0.5)
    stage.run(0.6)
    assert stage.finished[0][0] == "b"


def test_drop_forgets_only_what_has_not_begun() -> None:
    playout = Playout(MULAW_8K)
    for name in ("a", "b", "c"):
        _say(playout, name, 1.0)
    playout.pull(0.0)
    assert not playout.drop("a")
    assert playout.drop("b")
    assert playout.state("b") is UtteranceState.CLEARED
    assert playout.clear(0.0).dropped == ("c",)


def test_without_marks_time_alone_decides() -> None:
    playout = Playout(MULAW_8K, marks=False)
    _say(playout, "a", 0.5)
    _say(playout, "b", 0.5)
    now = 0.0
    done: list[tuple[str, float]] = []
    while (due := playout.next_due(now)) is not None and due < 5:
        now = max(now, due)
        assert all(isinstance(item, Audio) for item in playout.pull(now))
        done += [(name, now) for name in playout.done(now)]
        assert playout.heard_ms("a", now) == pytest.approx(min(500, now * 1000), abs=1)
        assert playout.heard_ms("b", now) == pytest.approx(max(0, now * 1000 - 500), abs=1)
    assert [name for name, _ in done] == ["a", "b"]
    assert [at for _, at in done] == pytest.approx([0.5, 1.0], abs=0.001)
    assert not playout.unconfirmed("a")


def test_an_utterance_without_audio_is_done_as_soon_as_its_mark_returns() -> None:
    playout = Playout(MULAW_8K)
    playout.begin("a")
    playout.finish("a")
    (mark,) = playout.pull(1.0)
    assert isinstance(mark, Mark)
    playout.echoed(mark.name, 1.01)
    assert playout.done(1.01) == ["a"]
    assert playout.heard_ms("a", 1.01) == 0


def test_misuse_is_refused() -> None:
    playout = Playout(MULAW_8K)
    _say(playout, "a", 0.1)
    with pytest.raises(ValueError, match="began before"):
        playout.begin("a")
    with pytest.raises(ValueError, match="finished"):
        playout.append("a", b"x")
    with pytest.raises(KeyError):
        playout.append("never", b"x")


_SCENES = st.lists(
    st.tuples(st.sampled_from(["append", "finish", "wait", "clear"]), st.integers(1, 900)), min_size=1, max_size=30
)


@settings(deadline=None)
@given(_SCENES, st.sampled_from([0.0, 0.013, 0.15]), st.sampled_from([MULAW_8K, PCM_16K]))
def test_whatever_happens_claims_are_true_and_the_lead_is_kept(
    scene: list[tuple[str, int]], delay: float, audio: AudioFormat
) -> None:
    stage = _stage(audio, delay)
    serial = 0
    stage.playout.begin("u0")
    for action, ms in scene:
        name = f"u{serial}"
        match action:
            case "append":
                stage.playout.append(name, bytes(audio.bytes_per_second * ms // 1000))
            case "finish":
                stage.playout.finish(name)
                serial += 1
                stage.playout.begin(f"u{serial}")
            case "clear":
                stage.playout.clear(stage.now)
                # The far end forgets, and every open mark comes back at once.
                stage.far = FarEnd(audio, delay, echoes=[(stage.now + delay, echo) for _, echo in stage.far.echoes])
                stage.claims.clear()
                serial += 1
                stage.playout.begin(f"u{serial}")
            case _:
                for _ in range(ms // 20):
                    stage.tick(0.02)
