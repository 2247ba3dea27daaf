"""docs/complaints.md: each complaint of the field's users about a conversation is held by tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "complaints.md"
CONVERSATION = {*range(1, 28), *range(35, 41)}
ELSEWHERE = {38}
"""Belongs to a door that is not built yet."""


def complaints() -> dict[int, list[tuple[str, str]]]:
    """Number → the tests that are named for it, as (file, function)."""
    parts = re.split(r"^### (\d+)\. .*$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    numbers = [int(number) for number in parts[1::2]]
    assert len(numbers) == len(set(numbers)), "a number occurs twice"
    found = [re.findall(r"^- `(tests/test_\w+\.py)::(test_\w+)`$", text, re.MULTILINE) for text in parts[2::2]]
    return dict(zip(numbers, found, strict=True))


@cache
def proofs_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


def test_every_complaint_about_a_conversation_is_answered() -> None:
    assert complaints().keys() == CONVERSATION
    assert {number for number, tests in complaints().items() if not tests} == ELSEWHERE


@pytest.mark.parametrize("number", sorted(CONVERSATION))
def test_the_tests_of_a_complaint_exist(number: int) -> None:
    missing = [f"{file}::{name}" for file, name in complaints()[number] if name not in proofs_in(file)]
    assert missing == []


def test_no_test_of_a_complaint_is_left_out() -> None:
    named = {test for tests in complaints().values() for test in tests}
    files = [file.relative_to(ROOT).as_posix() for file in sorted((ROOT / "tests").glob("test_complaints_*.py"))]
    assert len(files) >= 5
    assert {(file, name) for file in files for name in proofs_in(file)} <= named
