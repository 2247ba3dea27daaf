"""The SDK build under test: `SDK=<folder with dist/index.js>`. Without it nothing here runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client_build import ClientBuild

BUILD = ClientBuild("SDK", "dist/index.js", Path(__file__).parent)


@pytest.fixture(scope="session")
def sdk() -> Path:
    """The folder with the build."""
    path = BUILD.folder()
    assert path is not None
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    BUILD.skip_without(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    BUILD.tell_skipped(terminalreporter)
