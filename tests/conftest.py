"""Every run leaves in var/proofs.json what its tests proved; `make features` reads it (scripts/features.py)."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypedDict, cast

import pytest
import structlog

PROOFS = Path("var", "proofs.json")
_WORST_FIRST = ("failed", "skipped", "passed")


@pytest.fixture(autouse=True)
def logs_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Commands that run in this process set up the logs of a whole process, and loggers that keep what they were set up
    with would never be heard by a later test."""
    configure, root = cast("Callable[..., None]", structlog.configure), logging.getLogger()
    before, level = list(root.handlers), root.level

    def forgetful(**how: Any) -> None:
        configure(**{**how, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", forgetful)
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
        root.handlers[:] = before
        root.setLevel(level)


class Proof(TypedDict):
    """A test that marks something, and how it ended: passed, failed or skipped."""

    id: str
    proves: list[str]
    outcome: str


class ProofWriter:
    """Collects proofs from the reports, which xdist's workers send here with the tests' user properties."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._path = config.rootpath / PROOFS
        self._proofs: dict[str, Proof] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        ids = cast("list[str]", dict(report.user_properties).get("proves"))
        if not ids:
            return
        proof = self._proofs.setdefault(report.nodeid, Proof(id=report.nodeid, proves=ids, outcome="passed"))
        # A test whose set-up or tear-down fails proves nothing either.
        proof["outcome"] = min(proof["outcome"], report.outcome, key=_WORST_FIRST.index)

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        if self._config.option.collectonly or not self._proofs:
            return
        proofs = self._proofs if self._whole else {**self._before(), **self._proofs}
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"tests": [proofs[name] for name in sorted(proofs)]}, indent=1) + "\n")
            part.replace(self._path)
        except OSError as error:
            self._config.issue_config_time_warning(pytest.PytestWarning(f"proofs not kept: {error}"), stacklevel=2)

    @property
    def _whole(self) -> bool:
        """Were all tests asked for? Proofs of a part are added to those of before."""
        named = self._config.args_source is not pytest.Config.ArgsSource.TESTPATHS
        option = self._config.option
        return not (named or option.keyword or option.markexpr or getattr(option, "lf", False))

    def _before(self) -> dict[str, Proof]:
        try:
            stored = cast("list[Proof]", json.loads(self._path.read_text())["tests"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {proof["id"]: proof for proof in stored}


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(ProofWriter(config), "proofs")


def pytest_itemcollected(item: pytest.Item) -> None:
    ids = [str(one) for mark in item.iter_markers("proves") for one in mark.args]
    if ids:
        item.user_properties.append(("proves", ids))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the scenes scored, if any were performed."""
    reports = [one for some in terminalreporter.stats.values() for one in some if isinstance(one, pytest.TestReport)]
    told = [value for one in reports if one.when == "call" for name, value in one.user_properties if name == "scenes"]
    if told:
        from tests.scenes.summary import shown

        terminalreporter.section("scenes")
        terminalreporter.write_line(shown(told))
