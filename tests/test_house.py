"""Habits of the house that a reader relies on: sizes, names, owned tasks, one clock, no trace of a machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ("wire", "providers", "pipelines", "transports", "server", "demo")
AROUND = ("scripts", "benchmarks", "tests")
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
EMPTY_NAMES = {"utils", "util", "common", "helper", "helpers", "misc", "manager", "managers"}
"""A room named so could hold anything."""

OWNED_TASKS = {
    "providers/recogniser.py": "a recogniser's life begins in start() and ends in aclose(), which awaits it",
    "providers/elevenlabs_socket.py": "the reader of a shared socket outlives utterances; aclose() awaits it",
    "providers/elevenlabs.py": "one connecting serves all who wait for it; aclose() cancels and awaits it",
    "providers/local/espeak.py": "pieces are synthesised ahead of their reader; cancel() awaits them",
    "transports/webrtc/tuning.py": "reports of reception begin in receive(), which aiortc calls; stop() awaits them",
    "demo/caller.py": "the microphone runs between ring() and hang_up(), which awaits it",
    "server/voices.py": "one reading of a list serves all who ask for it; aclose() cancels and awaits it",
}
"""Modules that start tasks outside a TaskGroup, and who awaits them."""

CLOCKS = {"pipelines/clock.py": "where wall time enters"}
_TIME = ("time.time", "time.monotonic", "time.perf_counter", "time.sleep")


def python_files(*rooms: str) -> list[tuple[str, str]]:
    """Path from the root, and text."""
    files = sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))
    return [(path.relative_to(ROOT).as_posix(), path.read_text()) for path in files]


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression of names, calls dropped: `asyncio.get_running_loop().create_task`."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{dotted(node.value)}.{node.attr}"
        case ast.Call():
            return dotted(node.func)
        case _:
            return ""


def calls(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every call."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield node.lineno, dotted(node.func)


def groups(source: str) -> frozenset[str]:
    """Names that `source` gives to a TaskGroup; one that is passed on is called `tasks` or `group` here."""
    named = {"tasks", "group"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.withitem) and dotted(node.context_expr).endswith("TaskGroup") and node.optional_vars:
            named.add(dotted(node.optional_vars))
    return frozenset(named)


def is_loose_task(name: str, groups: frozenset[str]) -> bool:
    """Does that call start a task that no TaskGroup owns?"""
    owner, _, verb = name.rpartition(".")
    if verb == "ensure_future":
        return True
    return verb == "create_task" and owner.rpartition(".")[2].lstrip("_") not in groups


def test_modules_are_short() -> None:
    # Tests are tables more often than thoughts; they may run on.
    sizes = {path: text.count("\n") for path, text in python_files(*PROGRAM, "scripts", "benchmarks")}
    assert {path: size for path, size in sizes.items() if size > MAX_MODULE_LINES} == {}


def test_functions_fit_a_screen() -> None:
    long: list[str] = []
    for path, text in python_files(*PROGRAM, *AROUND):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{path}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def test_names_say_what_is_inside() -> None:
    names = [(path, set(re.split(r"[/_.]", path))) for path, _ in python_files(*PROGRAM, *AROUND)]
    assert [path for path, parts in names if parts & EMPTY_NAMES] == []


def test_every_task_has_an_owner() -> None:
    loose: dict[str, list[int]] = {}
    for path, text in python_files(*PROGRAM):
        owners = groups(text)
        loose[path] = [line for line, name in calls(text) if is_loose_task(name, owners)]
    unowned = {path: lines for path, lines in loose.items() if lines and path not in OWNED_TASKS}
    assert unowned == {}, "start them in a TaskGroup, or name who awaits them in OWNED_TASKS"
    assert [path for path in OWNED_TASKS if not loose.get(path)] == [], "no longer needed in OWNED_TASKS"


def test_no_task_is_started_and_forgotten() -> None:
    forgotten: list[str] = []
    for path, text in python_files(*PROGRAM, *AROUND):
        owners = groups(text)
        alone = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)]
        started = [node for node in alone if isinstance(node, ast.Call) and is_loose_task(dotted(node), owners)]
        forgotten += [f"{path}:{node.lineno}" for node in started]
    assert forgotten == [], "the loop keeps only a weak reference: such a task may vanish half-way"


def test_time_comes_from_the_loop() -> None:
    told = [
        f"{path}:{line} {name}"
        for path, text in python_files(*PROGRAM)
        for line, name in calls(text)
        if name in _TIME and path not in CLOCKS
    ]
    assert told == [], "take loop.time() or pipelines.clock: tests run on a clock that jumps"


@pytest.mark.parametrize(
    ("name", "loose"),
    [
        ("asyncio.create_task", True),
        ("asyncio.get_running_loop.create_task", True),
        ("self._loop.create_task", True),
        ("asyncio.ensure_future", True),
        ("ensure_future", True),
        ("tasks.create_task", False),
        ("self._tasks.create_task", False),
        ("conversations.create_task", False),
        ("create", False),
    ],
)
def test_a_loose_task_is_told_from_an_owned_one(name: str, loose: bool) -> None:
    source = "async with asyncio.TaskGroup() as conversations: pass"
    assert is_loose_task(name, groups(f"async def f():\n    {source}")) is loose


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", ".env.example"])
def test_the_house_has_its_papers(name: str) -> None:
    assert len((ROOT / name).read_text()) > 500


def _texts() -> Iterator[tuple[Path, str]]:
    """Every text file that belongs to the project."""
    endings = {".py", ".md", ".toml", ".yml", ".sh", ".in", ".txt", ".mjs", ".js", ".jsgf", ".html", ""}
    tops = [path for path in ROOT.iterdir() if path.is_file()]
    rooms = (*PROGRAM, *AROUND, "docs", "requirements", ".ci")
    for path in [*tops, *(path for room in rooms for path in (ROOT / room).rglob("*") if path.is_file())]:
        # A worktree's .git is a file that names a path; nobody commits it, nor .env.
        if path.suffix in endings and path.name not in (".git", ".env") and "node_modules" not in path.parts:
            yield path, path.read_text()


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    homes = re.compile(r"(?<![\w.:/-])/(?:home|Users)/\w+|(?<![\w.:/-])/root/\w")
    here = str(ROOT) + "/" if len(ROOT.parts) > 2 else None
    found = [
        path.relative_to(ROOT).as_posix()
        for path, text in _texts()
        if homes.search(text) or (here is not None and here in text)
    ]
    assert found == []


def test_no_path_leads_out_of_the_project() -> None:
    leaving: list[str] = []
    for path, text in _texts():
        for steps in re.findall(r"(?:\.\./)+[\w./-]*", text):
            # Code writes such paths from where it runs, which is the root or below it; documents from where they lie.
            start = path.parent if path.suffix == ".md" else ROOT / "one" / "two"
            if not (start / steps).resolve().is_relative_to(ROOT):
                leaving.append(f"{path.relative_to(ROOT)}: {steps}")
    assert leaving == []
