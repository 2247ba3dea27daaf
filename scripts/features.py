"""What of docs/features.md is proved: `python scripts/features.py [--update]`.

A test says what it proves with `@pytest.mark.proves("row-42", "ws-14", "web-7")`; every test run leaves its proofs in
var/proofs.json (tests/conftest.py). Without option: rows that no passing test of the last run proves, and counts.
`--update` rewrites the state column of the table from the marks in the sources.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FEATURES = ROOT / "docs" / "features.md"
PROOFS = ROOT / "var" / "proofs.json"
PLANNED = "planned"
WORKS = "works since "
LEGAL = {"row": 210, "ws": 53, "web": 39}
"""The kinds of things proved, each numbered from 1: features, checks of the SDK socket, checks of the browser side."""
_ROW = re.compile(r"^\| (\d+) \| (.+) \| (MUST|SHOULD|LATER|—) \| (.+) \|$")


@dataclass(frozen=True, slots=True)
class Feature:
    """A row of the table. `state` is PLANNED or WORKS with a version."""

    number: int
    text: str
    priority: str
    state: str

    @property
    def works(self) -> bool:
        return self.state.startswith(WORKS)

    def __str__(self) -> str:
        return f"| {self.number} | {self.text} | {self.priority} | {self.state} |"


def read_features(page: str) -> list[Feature]:
    """The rows of the table, in order."""
    found = (_ROW.match(line) for line in page.splitlines())
    return [Feature(int(row[1]), row[2], row[3], row[4]) for row in found if row]


def marks_in(source: str, name: str) -> Iterator[str]:
    """The ids in the `proves` marks of a test module. Raises ValueError for one that is not written out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "proves":
            for argument in node.args:
                if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
                    raise ValueError(f"{name}:{node.lineno}: write the ids of proves() out, so that they can be found")
                yield argument.value


def marks(tests: Path = ROOT / "tests") -> dict[str, list[str]]:
    """Every id that a test module marks, with the modules."""
    where: dict[str, list[str]] = {}
    for path in sorted(tests.rglob("*.py")):
        for mark in marks_in(path.read_text(), path.name):
            where.setdefault(mark, []).append(path.name)
    return where


def is_legal(mark: str) -> bool:
    """Does that id name something there is?"""
    kind, _, number = mark.partition("-")
    return re.fullmatch(r"[1-9]\d*", number) is not None and int(number) <= LEGAL.get(kind, 0)


def rewritten(page: str, marked: set[str], version: str) -> str:
    """The page with its state column as the marks have it. A row that worked before keeps its version."""
    lines: list[str] = []
    for line in page.splitlines():
        for feature in read_features(line):
            if f"row-{feature.number}" not in marked:
                line = str(replace(feature, state=PLANNED))
            elif not feature.works:
                line = str(replace(feature, state=WORKS + version))
        lines.append(line)
    return "\n".join(lines) + "\n"


def proved(tests: Mapping[str, tuple[list[str], str]]) -> tuple[set[str], set[str]]:
    """What some passing test of a run proves, and what some failing one should have."""
    passed = {mark for ids, outcome in tests.values() if outcome == "passed" for mark in ids}
    failed = {mark for ids, outcome in tests.values() if outcome == "failed" for mark in ids}
    return passed, failed


def report(features: list[Feature], passed: set[str], failed: set[str]) -> Iterator[str]:
    """Lines: rows without a proof, then counts by priority."""
    sound = {feature.number for feature in features if f"row-{feature.number}" in passed - failed}
    for feature in features:
        if feature.number not in sound and feature.priority != "—":
            broken = "BROKEN " if f"row-{feature.number}" in failed or feature.works else ""
            yield f"{feature.number:4} {feature.priority:6} {broken}{feature.text}"
    yield ""
    for priority in ("MUST", "SHOULD", "LATER"):
        rows = [feature.number for feature in features if feature.priority == priority]
        yield f"{priority:6} {len(sound.intersection(rows)):3} of {len(rows):3} proved"
    for kind in ("ws", "web"):
        count = sum(mark.startswith(f"{kind}-") for mark in passed - failed)
        yield f"{kind:6} {count:3} of {LEGAL[kind]:3} conformance checks proved"


def main() -> int:
    options = argparse.ArgumentParser(description="Which features are proved.")
    options.add_argument("--update", action="store_true", help="rewrite the state column of docs/features.md")
    page = FEATURES.read_text()
    if options.parse_args().update:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        page = rewritten(page, set(marks()), version)
        FEATURES.write_text(page)
        print(f"{sum(feature.works for feature in read_features(page))} rows work")
        return 0
    if not PROOFS.is_file():
        print("No test run has left its proofs yet: make test", file=sys.stderr)
        return 1
    tests = {test["id"]: (test["proves"], test["outcome"]) for test in json.loads(PROOFS.read_text())["tests"]}
    for line in report(read_features(page), *proved(tests)):
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
