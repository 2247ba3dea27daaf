"""The build of the web client under test: `WEB=<folder with dist/core/index.js>`. Without it nothing here runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client_build import ClientBuild

BUILD = ClientBuild("WEB", "dist/core/index.js", Path(__file__).parent)


@pytest.fixture(scope="session")
def web() -> Path:
    """The folder with the build."""
    path = BUILD.folder()
    assert path is not None
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    BUILD.skip_without(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    BUILD.tell_skipped(terminalreporter)
