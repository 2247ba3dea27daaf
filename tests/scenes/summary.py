"""Shows at the end of a run what the scenes scored."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tests.scenes.corpus import Ears
from tests.scenes.judge import Verdict
from tests.scenes.score import Floor, Score, table


def told(family: str, ears: Ears, verdict: Verdict) -> tuple[str, object]:
    """A user property for a test's report; xdist's workers send it as JSON."""
    return "scenes", msgspec.to_builtins((family, ears, verdict))


def shown(properties: Iterable[object]) -> str:
    """The table of all that was told."""
    verdicts: dict[str, dict[Ears, Verdict]] = {}
    totals: dict[Ears, Verdict] = {}
    found = msgspec.convert(list(properties), list[tuple[str, Ears, Verdict]])
    for family, ears, verdict in sorted(found, key=lambda one: one[:2]):
        verdicts.setdefault(family, {})[ears] = verdict
        totals.setdefault(ears, Verdict()).add(verdict)
    scores = {
        family: {ears: Score.of(verdict) for ears, verdict in by_ears.items()} for family, by_ears in verdicts.items()
    }
    return table(Floor(espeak="", families=scores, total={ears: Score.of(one) for ears, one in totals.items()}))
