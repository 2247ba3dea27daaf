"""Shows at the end of a run what the scenes scored."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest

from tests.scenes.corpus import Ears
from tests.scenes.judge import Verdict
from tests.scenes.score import Floor, Score, table

PROPERTY = "scenes"


def told(family: str, ears: Ears, verdict: Verdict) -> tuple[str, object]:
    """A user property for a test's report; xdist's workers send it as JSON."""
    return PROPERTY, msgspec.to_builtins((family, ears, verdict))


class SceneSummary:
    """A plugin of the process that reports."""

    def __init__(self) -> None:
        self._verdicts: dict[str, dict[Ears, Verdict]] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = dict(report.user_properties).get(PROPERTY)
        if found is not None and report.when == "call":
            family, ears, verdict = msgspec.convert(cast("list[object]", found), tuple[str, Ears, Verdict])
            self._verdicts.setdefault(family, {})[ears] = verdict

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._verdicts:
            return
        totals: dict[Ears, Verdict] = {}
        for by_ears in self._verdicts.values():
            for ears, verdict in by_ears.items():
                totals.setdefault(ears, Verdict()).add(verdict)
        scores = {
            family: {ears: Score.of(one) for ears, one in sorted(by_ears.items())}
            for family, by_ears in sorted(self._verdicts.items())
        }
        total = {ears: Score.of(one) for ears, one in sorted(totals.items())}
        terminalreporter.section("scenes")
        terminalreporter.write_line(table(Floor(espeak="", families=scores, total=total)))
