"""The score of the corpus: by family and kind of recogniser, kept in score.json, shown in docs/scenes.md.

It may get better and must not get worse. What hangs on the model's verdicts and on milliseconds is compared only where
espeak-ng has the version the score was taken with: another one speaks otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import msgspec

from tests.scenes.corpus import Ears, families
from tests.scenes.judge import Fault, Finding, Verdict, judge, percentile
from tests.scenes.sounds import synthesiser
from tests.scenes.stage import Performance, perform
from tests.virtual_time import VirtualTimeLoop

FILE = Path(__file__).with_name("score.json")
PAGE = Path(__file__).parents[2] / "docs" / "scenes.md"
BEGIN, END = "<!-- score: begin -->", "<!-- score: end -->"
SLACK_MS = 60
"""A delay may grow by two frames of the voice detector."""
VOICE_DEPENDENT = (Fault.LATE_INTERRUPTION, Fault.CUT_IN)


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """Of one family, or of several. Faults that did not happen are left out; delays are the median and the 90th
    percentile, in ms."""

    scenes: int
    faults: dict[Fault, int] = {}
    turn_end_ms: tuple[int | None, int | None] = (None, None)
    stop_ms: tuple[int | None, int | None] = (None, None)

    @classmethod
    def of(cls, verdict: Verdict) -> Self:
        return cls(
            scenes=verdict.scenes,
            faults={fault: count for fault in Fault if (count := verdict.count(fault))},
            turn_end_ms=_spread(verdict.turn_ends),
            stop_ms=_spread(verdict.stops),
        )


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """What must be reached."""

    espeak: str
    families: dict[str, dict[Ears, Score]]
    total: dict[Ears, Score]


def floor() -> Floor:
    return msgspec.json.decode(FILE.read_bytes(), type=Floor)


def run(family: str, ears: Ears) -> tuple[Verdict, list[Performance]]:
    """Perform and judge a family, on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        performances = runner.run(perform(families()[family], ears))
    return judged(performances), performances


def judged(performances: Iterable[Performance]) -> Verdict:
    verdict = Verdict()
    for performance in performances:
        verdict.add(judge(performance))
    return verdict


def worse(name: str, least: Score, verdict: Verdict, *, same_voice: bool) -> list[str]:
    """What got worse, in words."""
    score = Score.of(verdict)
    lines: list[str] = []
    for fault in Fault:
        if fault in VOICE_DEPENDENT and not same_voice:
            continue
        allowed, count = least.faults.get(fault, 0), score.faults.get(fault, 0)
        if count > allowed:
            lines.append(f"{name}: {count} {fault.value}, no more than {allowed} before")
            lines += [f"    {found.scene}: {found.what}" for found in _of(verdict.findings, fault)]
    if same_voice:
        lines += _slower(name, "turn end", least.turn_end_ms, score.turn_end_ms)
        lines += _slower(name, "stop", least.stop_ms, score.stop_ms)
    return lines


def take() -> Floor:
    """Perform everything."""
    totals = {ears: Verdict() for ears in Ears}
    scores: dict[str, dict[Ears, Score]] = {}
    for family in families():
        scores[family] = {}
        for ears in Ears:
            verdict, _ = run(family, ears)
            scores[family][ears] = Score.of(verdict)
            totals[ears].add(verdict)
    return Floor(espeak=synthesiser(), families=scores, total={ears: Score.of(one) for ears, one in totals.items()})


def table(score: Floor) -> str:
    """As Markdown, a row for each family and kind of recogniser."""
    rows = ["| family | heard by | scenes | faults | turn end (ms) | stop (ms) |", "|---|---|---|---|---|---|"]
    for family, by_ears in score.families.items():
        rows += [_row(family.replace("_", " "), ears, one) for ears, one in by_ears.items()]
    return "\n".join([*rows, *(_row("**all**", ears, one) for ears, one in score.total.items())])


def _row(name: str, ears: Ears, score: Score) -> str:
    faults = ", ".join(f"{count} {fault.value}" for fault, count in score.faults.items()) or "none"
    return f"| {name} | {ears} | {score.scenes} | {faults} | {_told(score.turn_end_ms)} | {_told(score.stop_ms)} |"


def _told(delays: tuple[int | None, int | None]) -> str:
    return "–" if delays[0] is None else f"{delays[0]} / {delays[1]}"


def _spread(delays: list[int]) -> tuple[int | None, int | None]:
    return percentile(delays, 0.5), percentile(delays, 0.9)


def _of(findings: Iterable[Finding], fault: Fault) -> Iterator[Finding]:
    return (found for found in findings if found.fault is fault)


def _slower(
    name: str, what: str, least: tuple[int | None, int | None], now: tuple[int | None, int | None]
) -> Iterator[str]:
    for share, before, after in zip(("median", "90th percentile"), least, now, strict=True):
        if before is not None and after is not None and after > before + SLACK_MS:
            yield f"{name}: {what} takes {after} ms ({share}), {before} before"
