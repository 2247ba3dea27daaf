"""A build of somebody else's client under test, named by a variable of the environment: not ours to ship, so without it
the tests beside a conftest.py are skipped, with one line that says why."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class ClientBuild:
    """`variable` names the folder; `entry` is the file that must lie in it; `tests` is the folder of its scenarios."""

    variable: str
    entry: str
    tests: Path

    @property
    def ask(self) -> str:
        """How to have these tests run."""
        return f"set {self.variable}=<folder with {self.entry}>: the client is not ours to ship"

    def folder(self) -> Path | None:
        """Where the build lies. Raises UsageError for a folder without one: a typing error must not pass as a skip."""
        named = os.environ.get(self.variable)
        if not named:
            return None
        path = Path(named).resolve()
        if not (path / self.entry).is_file():
            raise pytest.UsageError(f"{self.variable}={named}: there is no {self.entry}")
        return path

    def skip_without(self, items: list[pytest.Item]) -> None:
        """Skip the scenarios among `items` where no build is named."""
        if self.folder() is None:
            for item in items:
                if self.tests in item.path.parents:
                    item.add_marker(pytest.mark.skip(reason=self.ask))

    def tell_skipped(self, reporter: pytest.TerminalReporter) -> None:
        """Say at the end that they were skipped."""
        skipped = [report for report in reporter.stats.get("skipped", []) if self.ask in str(report.longrepr)]
        if skipped:
            reporter.write_line(f"tests/{self.tests.name}: {len(skipped)} skipped: {self.ask}")
