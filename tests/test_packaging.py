"""What lies between a clone and a running program: set-up scripts, Makefile, image, compose file, locked packages."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.api.health import health_routes
from server.gateway import STOP_SECONDS
from server.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
TOOLS = ("bash", "cat", "dirname", "env", "grep", "head", "id", "sh", "true")
"""What the set-up scripts may take for granted of a system."""


def text(name: str) -> str:
    return (ROOT / name).read_text()


def direct(name: str) -> list[str]:
    """The packages that a file of `requirements/*.in` names itself."""
    lines = (line.partition("#")[0].strip() for line in (REQUIREMENTS / name).read_text().splitlines())
    return [re.split(r"[=<>;\[ ]", line)[0] for line in lines if line and not line.startswith("-")]


def locked(name: str) -> dict[str, str]:
    """Package and version of every line of a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (REQUIREMENTS / name).read_text(), re.MULTILINE))


# --- locked packages ---


@pytest.mark.parametrize("name", ["runtime", "dev", "models"])
def test_every_direct_dependency_is_locked_with_hashes(name: str) -> None:
    assert set(direct(f"{name}.in")) <= set(locked(f"{name}.txt"))
    entries = re.split(r"\n(?=[a-z])", (REQUIREMENTS / f"{name}.txt").read_text().strip())
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_development_runs_on_the_very_packages_of_the_runtime() -> None:
    # scripts/setup.sh takes an installed dev.txt for an installed runtime.txt.
    assert locked("runtime.txt").items() <= locked("dev.txt").items()


def test_no_lock_file_tells_where_packages_came_from() -> None:
    assert [path.name for path in REQUIREMENTS.glob("*.txt") if "://" in path.read_text()] == []


def test_every_direct_dependency_has_its_line_of_why() -> None:
    explained = re.findall(r"^\| `([a-z0-9-]+)` \| .{8,}\|$", text("docs/dependencies.md"), re.MULTILINE)
    assert explained == [*direct("runtime.in"), *direct("dev.in"), *direct("models.in")]


# --- scripts ---


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with the few programs that every system has: the PATH of a machine without packages."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    return folder


def program(folder: Path, name: str, *lines: str) -> None:
    """A program called `name`, of shell lines."""
    (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (folder / name).chmod(0o755)


def run(path: Path, *command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(path), **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("name", ["scripts/setup.sh", "scripts/system_packages.sh", ".ci/run"])
def test_scripts_can_be_run_and_stop_at_the_first_failure(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    assert subprocess.run(["bash", "-n", ROOT / name], check=False).returncode == 0
    assert "\nset -euo pipefail\n" in text(name)


def test_ci_does_what_a_developer_does() -> None:
    assert text(".ci/run").splitlines()[-1] == "make test"
    assert text(".ci/run").count("make") == 1


def test_packages_that_are_there_cost_nothing_and_say_nothing(bare: Path) -> None:
    program(bare, "espeak-ng")
    done = run(bare, "scripts/system_packages.sh", "espeak-ng")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_apt_one_line_says_what_is_missing(bare: Path) -> None:
    done = run(bare, "scripts/system_packages.sh", "espeak-ng", "redis-server")
    assert done.returncode == 1
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert done.stderr.startswith("Missing: espeak-ng redis-server; ")


def test_without_rights_one_line_gives_the_command(bare: Path) -> None:
    program(bare, "apt-get", "exit 100")
    program(bare, "sudo", "exit 1")
    done = run(bare, "scripts/system_packages.sh", "espeak-ng")
    assert done.returncode == 1
    assert done.stdout.splitlines() in ([], ["Installing system packages: espeak-ng"])
    assert done.stderr == ("Missing: espeak-ng; run: sudo apt-get update && sudo apt-get install -y espeak-ng\n")


def test_what_is_missing_is_installed_after_a_look_at_newer_lists(bare: Path) -> None:
    """As root, or by a sudo that asks nothing; the first try fails as it does where the lists are absent."""
    program(bare, "sudo", "shift", 'exec "$@"')
    speech = bare / "espeak-ng"
    program(
        bare,
        "apt-get",
        f'echo "$@" >> {bare}/calls',
        f'case "$*" in *update*) : > {bare}/lists ;; esac',
        f"test -f {bare}/lists || exit 100",
        f'case "$*" in *install*) echo "#!/bin/sh" > {speech}; {shutil.which("chmod")} +x {speech} ;; esac',
    )
    done = run(bare, "scripts/system_packages.sh", "espeak-ng")
    assert (done.returncode, done.stdout) == (0, "Installing system packages: espeak-ng\n")
    verbs = [re.findall("install|update", call)[0] for call in (bare / "calls").read_text().splitlines()]
    assert verbs == ["install", "update", "install"]


def test_a_python_too_old_is_named_in_one_line(bare: Path, tmp_path: Path) -> None:
    clone = clone_of_scripts(tmp_path)
    program(bare, "python3", 'test "$1" = --version && echo Python 3.9.2 && exit 0', "exit 1")
    done = run(bare, "scripts/setup.sh", "run", cwd=clone)
    assert done.returncode == 1
    assert done.stderr == (
        "setup: Missing: Python 3.11 or newer (python3 is Python 3.9.2);"
        " run: sudo apt-get install -y python3.11 python3.11-venv\n"
    )


def clone_of_scripts(tmp_path: Path) -> Path:
    clone = tmp_path / "clone"
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", clone)
    return clone


@pytest.fixture
def installed(bare: Path, tmp_path: Path) -> Path:
    """A clone with a .venv whose Python writes down what is installed instead of installing it."""
    clone = clone_of_scripts(tmp_path)
    binaries = clone / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (clone / "log").touch()
    program(
        binaries,
        "python",
        'case "$*" in "-m pip"*|*fetch_models*) echo "$@" >> log; echo > .venv/bin/voice-gateway ;;',
        f'*) exec {sys.executable} "$@" ;; esac',
    )
    (binaries / "voice-gateway").touch()
    (binaries / "voice-gateway").chmod(0o755)
    program(bare, "espeak-ng")
    program(bare, "redis-server")
    program(bare, "chromium")
    return clone


def installs(clone: Path, bare: Path, goal: str) -> list[str]:
    """What setting up for `goal` installs now, as the requirement files or folders named."""
    (clone / "log").write_text("")
    done = run(bare, "scripts/setup.sh", goal, cwd=clone, HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    return [line.split()[-1] for line in (clone / "log").read_text().splitlines() if "pip install" in line]


def test_setting_up_again_installs_nothing(installed: Path, bare: Path) -> None:
    assert installs(installed, bare, "run") == ["requirements/runtime.txt", "."]
    assert installs(installed, bare, "run") == []
    assert installs(installed, bare, "demo") == []
    assert installs(installed, bare, "test") == ["requirements/dev.txt"]
    assert installs(installed, bare, "test") == []
    assert installs(installed, bare, "run") == [], "what tests need includes what running needs"


def test_changed_requirements_are_installed(installed: Path, bare: Path) -> None:
    installs(installed, bare, "test")
    for name, goal in (("runtime", "run"), ("dev", "test")):
        with (installed / "requirements" / f"{name}.txt").open("a") as lock:
            lock.write("# newer\n")
        assert installs(installed, bare, goal) == [f"requirements/{name}.txt"]
        assert installs(installed, bare, goal) == []
    with (installed / "pyproject.toml").open("a") as project:
        project.write("# newer\n")
    assert installs(installed, bare, "run") == ["."]


@pytest.mark.parametrize(
    ("goal", "env_file", "code"),
    [("run", "", 1), ("run", "DEEPGRAM_API_KEY=\n", 1), ("run", "# OPENAI_API_KEY=x\n", 1),
     ("run", "ELEVENLABS_API_KEY=abc\n", 0), ("demo", "ELEVENLABS_API_KEY=abc\n", 1), ("test", "", 1)],
)  # fmt: skip
def test_espeak_is_demanded_only_where_nobody_else_can_speak(
    installed: Path, bare: Path, goal: str, env_file: str, code: int
) -> None:
    (bare / "espeak-ng").unlink()
    (installed / ".env").write_text(env_file)
    done = run(bare, "scripts/setup.sh", goal, cwd=installed)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith("Missing: espeak-ng; ")


def test_a_missing_redis_stops_no_test(installed: Path, bare: Path) -> None:
    (bare / "redis-server").unlink()
    done = run(bare, "scripts/setup.sh", "test", cwd=installed)
    assert done.returncode == 0
    assert done.stderr.startswith("Missing: redis-server; ")


# --- the Makefile ---


def test_make_alone_lists_every_target() -> None:
    make = shutil.which("make")
    assert make
    shown = subprocess.run([make, "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^  make (\S+) +\S", shown, re.MULTILINE)
    assert listed == re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE)
    assert {"setup", "run", "demo", "test", "lint", "features", "bench", "test-sdk", "lock", "clean"} <= set(listed)


def test_commands_of_the_makefile_exist() -> None:
    goals = re.findall(r"^  ([a-z]+)\)", text("scripts/setup.sh"), re.MULTILINE)
    called = re.findall(r"scripts/setup\.sh (\S+)", text("Makefile"))
    assert called
    assert set(called) <= set(goals)
    files = re.findall(r"\b(?:scripts|tests|benchmarks)/[\w./-]+", text("Makefile"))
    modules = [name.replace(".", "/") + ".py" for name in re.findall(r"-m (benchmarks\.\w+)", text("Makefile"))]
    assert [name for name in [*files, *modules] if not (ROOT / name).exists()] == []


def test_nothing_is_reported_to_the_makers_of_onnxruntime() -> None:
    """Its Linux wheels send how they are used and keep an id of the machine, unless this is set before they load."""
    assert "\nexport ORT_DISABLE_TELEMETRY := 1\n" in text("Makefile")
    assert "ORT_DISABLE_TELEMETRY=1" in dict(instructions())["ENV"].split()


# --- the image ---


def instructions() -> list[tuple[str, str]]:
    """Instruction and argument of every line of the Dockerfile, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text("Dockerfile"), flags=re.MULTILINE))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word]


def copied() -> list[str]:
    """What the build takes from this folder."""
    arguments = [shlex.split(rest) for word, rest in instructions() if word == "COPY"]
    return [name for words in arguments if not words[0].startswith("--from") for name in words[:-1]]


def test_the_image_is_made_by_the_scripts_of_the_makefile() -> None:
    commands = " && ".join(rest for word, rest in instructions() if word == "RUN")
    for script in ("scripts/setup.sh packages", "scripts/setup.sh project", "scripts/system_packages.sh espeak-ng"):
        assert script in commands
    assert "pip " not in commands
    assert "apt" not in commands.replace("/var/lib/apt/lists", "")


def test_everything_copied_into_the_image_exists_and_may_be() -> None:
    allowed = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    assert "\n*\n" in text(".dockerignore"), "what is not allowed stays out"
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    assert [name for name in copied() if name.split("/")[0] not in allowed] == []
    assert {name.split("/")[0] for name in copied()} == allowed


def test_what_is_copied_is_enough_to_run(tmp_path: Path) -> None:
    """Everything but installed packages and models comes from the copied files."""
    for name in copied():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    modules = ("server.cli", "server.app", "demo.show", "demo.agent", "demo.ring")
    code = f"import {', '.join(modules)}; print(server.app.__file__, demo.agent.__file__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(tmp_path)) == 2


def test_the_container_runs_unprivileged_and_listens_where_it_says() -> None:
    last = dict(instructions())
    assert last["USER"] == "voice"
    assert last["EXPOSE"] == str(Settings.model_fields["port"].default)
    assert last["VOLUME"] == "/data"
    assert {"HOST=0.0.0.0", "DATA_DIR=/data"} <= set(last["ENV"].split())
    assert (last["ENTRYPOINT"], last["CMD"]) == ('["/app/.venv/bin/voice-gateway"]', '["serve"]')
    assert [rest for word, rest in instructions() if word == "FROM"] == [
        "python:3.11-slim AS build",
        "python:3.11-slim",
    ]


def test_the_health_check_asks_a_route_that_exists() -> None:
    check = dict(instructions())["HEALTHCHECK"]
    path = re.search(r"\+ '(/\w+)'", check)
    assert path
    assert path[1] in {getattr(route, "path", "") for route in health_routes(_Healthy()).routes}
    code = yaml.safe_load(check.partition("CMD ")[2])[2]
    compile(code, "health check", "exec")
    assert f"or '{Settings.model_fields['port'].default}'" in code


class _Healthy:
    ready = True

    def exposition(self) -> bytes:
        return b""


# --- compose ---


@pytest.fixture
def services() -> dict[str, Any]:
    return yaml.safe_load(text("docker-compose.yml"))["services"]


def test_a_copied_example_cannot_move_the_container(services: dict[str, Any]) -> None:
    """`.env.example` says HOST=127.0.0.1 and DATA_DIR=var, which `env_file` would bring into the container."""
    gateway = services["gateway"]
    assert gateway["env_file"] == [{"path": ".env", "required": False}]
    assert gateway["environment"] == {
        "HOST": "0.0.0.0",
        "PORT": str(Settings.model_fields["port"].default),
        "DATA_DIR": "/data",
        "REDIS_URL": "redis://redis:6379/0",
        "WEBRTC_UDP_PORTS": "40000-40099",
    }


def test_variables_of_compose_and_image_are_settings(services: dict[str, Any]) -> None:
    example = set(re.findall(r"^([A-Z_]+)=", text(".env.example"), re.MULTILINE))
    set_here = dict(instructions())["ENV"] + " " + " ".join(f"{name}=" for name in services["gateway"]["environment"])
    names = set(re.findall(r"\b([A-Z_]+)=", set_here)) - {"PYTHONDONTWRITEBYTECODE", "ORT_DISABLE_TELEMETRY"}
    assert names <= example
    assert re.findall(r"\$\{(\w+)", text("docker-compose.yml")) == []


def test_compose_publishes_the_port_waits_for_redis_and_gives_time_to_stop(services: dict[str, Any]) -> None:
    gateway, redis = services["gateway"], services["redis"]
    port = Settings.model_fields["port"].default
    voice = gateway["environment"]["WEBRTC_UDP_PORTS"]
    assert gateway["ports"] == [f"127.0.0.1:{port}:{port}", f"{voice}:{voice}/udp"]
    assert gateway["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert redis["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}
    assert [mount.partition(":")[2] for mount in gateway["volumes"]] == ["/data"]
    assert int(gateway["stop_grace_period"].rstrip("s")) > 2 * STOP_SECONDS
