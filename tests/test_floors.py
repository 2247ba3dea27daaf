"""The floors of ARCHITECTURE.md: an import only ever points down."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("wire", "providers", "pipelines", "transports", "server")
"""From the ground up."""
SHARED_PROVIDERS = (
    "providers.base",
    "providers.errors",
    "providers.vendor_http",
    "providers.catalogues.catalogue",
    "providers.catalogues.languages",
)
"""What other floors may know of providers."""
COMPOSERS = ("server/engines.py",)
"""The only modules outside `providers` that know a vendor."""


def imports(source: str, module: str) -> Iterator[str]:
    """Every module that `source`, the text of `module`, imports: wherever the import stands, relative ones resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            # `from providers import elevenlabs` names a module just as well as `from providers.elevenlabs import …`.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def objection(path: str, imported: str) -> str | None:
    """Why the module at `path` may not import that, or None when it may."""
    here, there = path.split("/")[0], imported.split(".")[0]
    if there in ("tests", "scripts", "benchmarks"):
        return "is not part of the program"
    if there == "demo" and here != "demo":
        return None if path == "server/cli.py" else "the demo is shown by the command line only"
    if there == "server" and here == "demo":
        return None if imported.startswith("server.settings") else "of the server, the demo knows only its settings"
    if there not in FLOORS:
        return None
    if here != "demo" and FLOORS.index(there) > FLOORS.index(here):
        return f"{there} lies above {here}"
    if there == "providers" and here != "providers" and path not in COMPOSERS:
        shared = any(f"{imported}.".startswith(f"{name}.") for name in SHARED_PROVIDERS)
        return None if shared else "only server/engines.py knows vendors"
    return None


def _modules() -> list[Path]:
    return sorted(path for room in (*FLOORS, "demo") for path in (ROOT / room).rglob("*.py"))


def test_imports_point_down() -> None:
    modules = _modules()
    assert len(modules) > 100
    wrong: list[str] = []
    for file in modules:
        path = file.relative_to(ROOT).as_posix()
        for imported in imports(file.read_text(), path.removesuffix(".py").replace("/", ".")):
            if reason := objection(path, imported):
                wrong.append(f"{path} imports {imported}: {reason}")
    assert wrong == []


@pytest.mark.parametrize(
    ("path", "imported"),
    [
        ("wire/config.py", "providers.base"),
        ("providers/openai.py", "pipelines.clock"),
        ("pipelines/call.py", "transports.twilio.stream"),
        ("pipelines/call.py", "providers.elevenlabs"),
        ("pipelines/call.py", "providers.local"),
        ("transports/twilio/door.py", "server.app"),
        ("server/phone.py", "providers.deepgram.flux"),
        ("server/phone.py", "providers.basement"),
        ("server/app.py", "demo.caller"),
        ("server/app.py", "tests.speech"),
        ("demo/show.py", "server.app"),
        ("demo/voice.py", "providers.local.espeak"),
    ],
)
def test_a_wrong_import_is_noticed(path: str, imported: str) -> None:
    assert objection(path, imported)


@pytest.mark.parametrize(
    ("path", "imported"),
    [
        ("pipelines/call.py", "providers.base.SpeechToText"),
        ("pipelines/call.py", "providers.errors"),
        ("providers/openai.py", "providers.openai_wire"),
        ("server/engines.py", "providers.deepgram.flux"),
        ("server/cli.py", "demo.show"),
        ("demo/ring.py", "server.settings.Settings"),
        ("demo/voice.py", "pipelines.audio.ulaw"),
        ("wire/config.py", "msgspec"),
    ],
)
def test_a_right_import_is_left_alone(path: str, imported: str) -> None:
    assert objection(path, imported) is None


def test_imports_are_found_in_every_spelling() -> None:
    source = "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\ndef h():\n    import i\n"
    assert list(imports(source, "x.y.z")) == ["a.b", "c.d", "x.y.e", "x.f.g", "i"]
