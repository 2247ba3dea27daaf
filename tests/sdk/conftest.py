"""The SDK build under test: `SDK=<folder with dist/index.js>`. It is not ours to ship, so without it nothing runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ASK = "set SDK=<folder with dist/index.js>: the client is not ours to ship"


def sdk_folder() -> Path | None:
    """Where the build lies. Raises UsageError for a folder without one: a typing error must not pass as a skip."""
    folder = os.environ.get("SDK")
    if not folder:
        return None
    path = Path(folder).resolve()
    if not (path / "dist" / "index.js").is_file():
        raise pytest.UsageError(f"SDK={folder}: there is no dist/index.js")
    return path


@pytest.fixture(scope="session")
def sdk() -> Path:
    """The folder with the build."""
    path = sdk_folder()
    assert path is not None
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if sdk_folder() is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=ASK))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if ASK in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"tests/sdk: {len(skipped)} skipped: {ASK}")
