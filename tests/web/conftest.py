"""The build of the web client under test: `WEB=<folder with dist/core/index.js>`. Without it nothing here runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ASK = "set WEB=<folder with dist/core/index.js>: the web client is not ours to ship"


def web_folder() -> Path | None:
    """Where the build lies. Raises UsageError for a folder without one: a typing error must not pass as a skip."""
    folder = os.environ.get("WEB")
    if not folder:
        return None
    path = Path(folder).resolve()
    if not (path / "dist" / "core" / "index.js").is_file():
        raise pytest.UsageError(f"WEB={folder}: there is no dist/core/index.js")
    return path


@pytest.fixture(scope="session")
def web() -> Path:
    """The folder with the build."""
    path = web_folder()
    assert path is not None
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if web_folder() is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=ASK))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if ASK in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"tests/web: {len(skipped)} skipped: {ASK}")
