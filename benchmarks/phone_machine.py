"""What the benchmark runs on, and on which core."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def machine(server_core: int | None) -> str:
    """One line: what this ran on, and which revision it was."""
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=9"], capture_output=True, text=True, check=False
    )
    cores = f"{os.cpu_count()} cores, " + ("not pinned" if server_core is None else f"server on core {server_core}")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()[:2])
    return (
        f"{cpu}, {cores}; Python {platform.python_version()}, {platform.system()} {platform.release()}; "
        f"revision {git.stdout.strip() or 'unknown'}; load average before: {load}"
    )


@contextmanager
def pinned() -> Generator[int | None]:
    """Keep this process on the first core; gives the last one, for the server, or None when there is just one."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        yield None
        return
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield max(allowed)
    finally:
        os.sched_setaffinity(0, allowed)
