"""What the documents say is what the code does: commands, events, fields, modules, links, examples."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from providers.local.sphinx import check_grammar
from server.engines import Engines
from transports.chat import frames
from wire import chat_events, events, link_events
from wire.commands import AnyCommand, Command, Unknown
from wire.config import LocalStt
from wire.events import CallEvent, Event
from wire.link_events import AgentEvent
from wire.parsing import parse
from wire.resolve import Scope, ServerDefaults, read_layer, resolve

ROOT = Path(__file__).parents[1]
PROTOCOL = ROOT / "docs" / "protocol.md"
FLOORS = ("wire", "providers", "pipelines", "transports", "server", "demo")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
ENVELOPE = frozenset({"agent_id", "call_id", "session_id", "ts", "seq"})


# --- reading the documents ---


def page(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def section(text: str, number: int) -> str:
    """From `## number.` to the next heading of that rank."""
    found = re.search(rf"^## {number}\. .*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/protocol.md has no section {number}"
    return found[0]


def rows(text: str) -> dict[str, tuple[dict[str, bool], str]]:
    """Tag → ({field: may be missing}, what is said of it), from the tables `| tag | fields | text |`."""
    found: dict[str, tuple[dict[str, bool], str]] = {}
    for tag, fields, said in re.findall(r"^\| `([a-z_.]+)` \| (.*?) \| (.*) \|$", text, re.MULTILINE):
        assert tag not in found, f"docs/protocol.md has two rows for {tag}"
        found[tag] = ({name: bool(mark) for name, mark in re.findall(r"`(\w+)`(\?)?", fields)}, said)
    return found


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def json_values(text: str) -> list[Any]:
    """All JSON of a page: a block holds one value, or one a line."""
    values: list[Any] = []
    for block in fences(text, "json"):
        try:
            values.append(json.loads(block))
        except ValueError:
            values += [json.loads(line) for line in block.splitlines() if line.strip()]
    return values


def prose(text: str) -> str:
    """Without code blocks."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What headings can be linked by, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- reading the code ---


def commands() -> dict[str, type[Command]]:
    return {str(one.__struct_config__.tag): one for one in get_args(AnyCommand)}


def event_types() -> dict[str, list[type[Event]]]:
    found: dict[str, list[type[Event]]] = {}
    for value in {**vars(link_events), **vars(events), **vars(chat_events)}.values():
        if (
            isinstance(value, type)
            and issubclass(value, Event)
            and value not in (Event, AgentEvent, CallEvent, chat_events.RequesterEvent, chat_events.ChatOver)
        ):
            found.setdefault(str(value.__struct_config__.tag), []).append(value)
    return found


def page_event_types() -> dict[str, list[type[Any]]]:
    """What chat pages are sent, which is no part of the SDK socket."""
    return {str(one.__struct_config__.tag): [one] for one in frames.PageEvent.__subclasses__()}


def fields_of(type_: type[Command | Event]) -> dict[str, bool]:
    """Wire name → whether it may be missing: not given by a client, or left out by us."""
    ours = issubclass(type_, Event)
    return {
        field.encode_name: field.default is msgspec.UNSET if ours else not field.required
        for field in msgspec.structs.fields(type_)
    }


@cache
def modules() -> dict[Path, ast.Module]:
    files = [file for floor in FLOORS for file in sorted((ROOT / floor).glob("**/*.py"))]
    return {file.relative_to(ROOT): ast.parse(page(file)) for file in files}


def nodes(*floors: str) -> Iterator[ast.AST]:
    for file, tree in modules().items():
        if file.parts[0] in floors:
            yield from ast.walk(tree)


def names_made() -> set[str]:
    """Everything that is called by name above the wire, import aliases undone."""
    seen = list(nodes("pipelines", "transports", "server"))
    imports = [name for node in seen if isinstance(node, ast.ImportFrom) for name in node.names]
    aliases = {name.asname: name.name for name in imports if name.asname}
    calls = {node.func.id for node in seen if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return {aliases.get(name, name) for name in calls}


def names_told_apart() -> set[str]:
    """Classes that `match` or `isinstance` look for above the wire: commands that somebody carries out."""
    found: set[str] = set()
    for node in nodes("pipelines", "server"):
        if isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name):
            found.add(node.cls.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            found |= {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
    return found


# --- the protocol ---


def test_every_command_has_its_row_with_exactly_its_fields() -> None:
    told = rows(section(page(PROTOCOL), 2))
    assert told.keys() == commands().keys()
    for tag, type_ in commands().items():
        assert told[tag][0] == fields_of(type_), f"fields of the command {tag}"


def test_every_event_has_its_row_with_exactly_its_fields() -> None:
    told = rows(section(page(PROTOCOL), 3))
    assert told.keys() == event_types().keys()
    for tag, types in event_types().items():
        fields: dict[str, bool] = {}
        for type_ in types:
            fields = fields_of(type_) | fields
        expected = {name: missing for name, missing in fields.items() if name not in ENVELOPE}
        assert told[tag][0] == expected, f"fields of the event {tag}"


def test_what_is_not_served_is_called_not_yet_and_nothing_else_is() -> None:
    carried_out = names_told_apart()
    for tag, (_, said) in rows(section(page(PROTOCOL), 2)).items():
        assert said.startswith("*not yet*") == (commands()[tag].__name__ not in carried_out), f"the command {tag}"
    made = names_made()
    for tag, (_, said) in rows(section(page(PROTOCOL), 3)).items():
        sent = any(type_.__name__ in made for type_ in event_types()[tag])
        assert said.startswith("*not yet*") == (not sent), f"the event {tag}"


def test_vendors_that_are_served_are_named() -> None:
    line = re.search(r"^- Vendors other than (.*?)\.$", section(page(PROTOCOL), 6), re.MULTILINE)
    assert line
    assert set(re.findall(r"`([\w-]+)`", line[1])) == Engines.served | {"local"}


def test_frames_in_examples_are_frames() -> None:
    examples = [value for path in PAGES for value in json_values(page(path)) if "event" in value]
    for frame in examples:
        if frame["event"] in commands():
            assert not isinstance(parse(json.dumps(frame)), Unknown)
        else:
            type_ = {**page_event_types(), **event_types()}[frame["event"]][0]
            msgspec.convert(frame, type_)
            assert frame.keys() <= {"event", *fields_of(type_)}, frame
    assert {"connect", "connected", "call.started", "bot.reply", "call.ended"} <= {one["event"] for one in examples}


def test_every_error_code_is_explained() -> None:
    codes = re.compile(
        r"[A-Z]+(?:_[A-Z]+)*_(?:ERROR|IN_USE|TIMEOUT|AUTHENTICATED|REQUEST|NOT_FOUND|REQUIRED)|INVALID_KEY"
    )
    used = {
        node.value
        for node in nodes("wire", "providers", "pipelines", "server")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and codes.fullmatch(node.value)
    }
    table = page(PROTOCOL).partition("### 1.8")[2].partition("## 2.")[0]
    assert used, "the pattern finds nothing"
    assert {code for code in used if f"`{code}`" not in table} == set()


def test_sections_that_comments_cite_exist() -> None:
    text = page(PROTOCOL)
    headings = set(re.findall(r"(?:^#+ |, )(\d(?:\.\d+)?)\.? ", text, re.MULTILINE))
    behaviour = set(re.findall(r"§(\d(?:\.\d+)?)", "\n".join(re.findall(r"^\| (§.*?) \|", section(text, 7), re.M))))
    browser = set(re.findall(r"^#+ (\d(?:\.\d+)?)\.? ", page(ROOT / "docs/browser.md"), re.MULTILINE))
    for file in modules():
        source = page(ROOT / file)
        for kind, first, more in re.findall(
            r"(protocol|behaviour|browser) §(\d(?:\.\d+)?)((?:, §\d(?:\.\d+)?)*)", source
        ):
            cited = {first, *re.findall(r"§(\d(?:\.\d+)?)", more)}
            known = {"protocol": headings, "behaviour": behaviour, "browser": browser}[kind]
            assert cited <= known, f"{file} cites {kind} §{cited - known}; there is no such section"


# --- the map ---


def test_the_map_names_every_module_and_no_other() -> None:
    mapped: set[str] = set()
    folder = ""
    for line in page(ROOT / "ARCHITECTURE.md").splitlines():
        if heading := re.match(r"#+ `([\w/]+)/`", line):
            folder = heading[1]
        elif line.startswith("#"):
            folder = ""
        elif folder and (module := re.match(r"- `(\w+\.py)` – \S", line)):
            mapped.add(f"{folder}/{module[1]}")
    there = {file.as_posix() for file in modules() if file.name != "__init__.py"}
    assert mapped - there == set(), "ARCHITECTURE.md names modules that do not exist"
    assert there - mapped == set(), "modules without a line in ARCHITECTURE.md"


def test_files_that_documents_name_exist() -> None:
    for path in PAGES:
        named = re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|txt|jsgf))`", prose(page(path)))
        missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "pipelines" / name).exists()]
        assert missing == [], f"{path.relative_to(ROOT)} names files that do not exist"


# --- all pages ---


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    text = page(path)
    for target in re.findall(r"\]\(([^()\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{target} leads nowhere"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(page(there)), f"{target}: no such heading"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_parse(path: Path) -> None:
    for block in fences(page(path), "python"):
        ast.parse(block)
    json_values(page(path))


def test_the_grammar_in_the_documents_is_one_the_recogniser_takes() -> None:
    found = 0
    for frame in json_values(page(ROOT / "docs" / "local-engines.md")):
        command: Any = parse(json.dumps(frame))
        stt = resolve([read_layer(command.config, Scope.AGENT)], ServerDefaults(local_fallback=True)).stt
        assert isinstance(stt, LocalStt)
        assert stt.grammar or stt.keyterms
        if stt.grammar:
            check_grammar(stt.grammar)
            found += 1
    assert found
