"""docs/features.md, the marks in the tests and what `make features` makes of both."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.features import (
    FEATURES,
    PLANNED,
    ROOT,
    WORKS,
    Feature,
    is_legal,
    marks,
    marks_in,
    proved,
    read_features,
    report,
    rewritten,
)

PAGE = """# Features

| # | feature | priority | state |
|---|---|---|---|
| 1 | one thing | MUST | planned |
| 2 | another | SHOULD | works since 0.0.9 |
| 3 | a third | MUST | works since 0.0.9 |
"""
SUITE = """
import pytest

@pytest.mark.proves("row-1", "ws-2")
def test_good(): pass

@pytest.mark.proves("row-2")
def test_bad(): assert False

@pytest.mark.proves("row-3")
def test_skipped(): pytest.skip()

@pytest.fixture
def leaking():
    yield
    raise RuntimeError

@pytest.mark.proves("row-4")
def test_leaves_a_mess(leaking): pass

def test_proves_nothing(): pass
"""


def test_the_table_has_every_row_once() -> None:
    features = read_features(FEATURES.read_text())
    assert [feature.number for feature in features] == list(range(1, 211))
    assert all(feature.state == PLANNED or feature.works for feature in features)


def test_every_row_that_works_is_marked_by_a_test() -> None:
    marked = marks()
    works = [feature.number for feature in read_features(FEATURES.read_text()) if feature.works]
    assert works
    assert [number for number in works if f"row-{number}" not in marked] == []


def test_every_mark_names_something_there_is() -> None:
    assert {mark: where for mark, where in marks().items() if not is_legal(mark)} == {}


@pytest.mark.parametrize("mark", ["row-0", "row-211", "row-07", "row-", "ws-54", "web-40", "42", "rows-4", "row-4.1"])
def test_a_mark_of_nothing_is_noticed(mark: str) -> None:
    assert not is_legal(mark)


def test_marks_are_found_wherever_they_stand() -> None:
    source = 'pytestmark = m.proves("row-1")\n@pytest.mark.proves("ws-2", "web-3")\nclass T: ...\n'
    assert list(marks_in(source, "x.py")) == ["row-1", "ws-2", "web-3"]
    with pytest.raises(ValueError, match=r"x\.py:1"):
        list(marks_in("pytest.mark.proves(ROW)", "x.py"))


def test_update_follows_the_marks_and_keeps_since_when() -> None:
    features = read_features(rewritten(PAGE, {"row-1", "row-2"}, "0.2.0"))
    assert [feature.state for feature in features] == [WORKS + "0.2.0", WORKS + "0.0.9", PLANNED]
    assert rewritten(PAGE, {"row-2", "row-3"}, "0.2.0") == PAGE


def test_the_report_names_what_is_unproved_and_what_broke() -> None:
    tests = {
        "a": (["row-1", "ws-1"], "passed"),
        "b": (["row-2"], "passed"),
        "c": (["row-2"], "failed"),
        "d": (["row-3"], "skipped"),
    }
    lines = list(report(read_features(PAGE), *proved(tests)))
    assert lines[:3] == ["   2 SHOULD BROKEN another", "   3 MUST   BROKEN a third", ""]
    assert "MUST     1 of   2 proved" in lines
    assert "ws       1 of  53 conformance checks proved" in lines


def test_a_row_in_the_client_alone_wants_no_proof() -> None:
    assert next(report([Feature(156, "mode", "—", PLANNED)], set(), set())) == ""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one process", "two workers"])
def test_a_run_leaves_what_it_proved(tmp_path: Path, workers: list[str]) -> None:
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "tests" / "test_some.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\nmarkers = proves(*ids): what it proves\n")
    _run(tmp_path, *workers)
    assert _outcomes(tmp_path) == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_skipped": "skipped",
        "test_leaves_a_mess": "failed",
    }
    (tmp_path / "tests" / "test_some.py").write_text(SUITE.replace("assert False", "pass").replace("good", "fine"))
    _run(tmp_path, "tests/test_some.py::test_bad")
    assert _outcomes(tmp_path)["test_bad"] == "passed"
    assert _outcomes(tmp_path)["test_good"] == "passed", "a partial run forgets nothing"
    _run(tmp_path)
    assert "test_good" not in _outcomes(tmp_path), "a whole run forgets tests that are gone"


def _run(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=50)


def _outcomes(folder: Path) -> dict[str, str]:
    stored = json.loads((folder / "var" / "proofs.json").read_text())
    return {test["id"].rpartition("::")[2]: test["outcome"] for test in stored["tests"]}
