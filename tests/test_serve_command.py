"""`voice-gateway serve`: what it tells whoever has just started it, or could not."""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path

import pytest

from server import cli
from server.logs import configure_logging
from server.settings import Settings


def test_a_port_that_is_taken_is_named_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))
        monkeypatch.setattr(sys, "argv", ["voice-gateway", "serve"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "; take another, such as PORT=" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("port", [1337, 1400])
def test_the_commands_that_are_printed_lead_to_this_gateway(capsys: pytest.CaptureFixture[str], port: int) -> None:
    settings = Settings(_env_file=None, port=port)  # pyright: ignore[reportCallIssue]
    cli._next_steps(settings, "pk_0123456789abcdef", demo=False)  # pyright: ignore[reportPrivateUsage]
    told = capsys.readouterr().out
    elsewhere = port != 1337  # the default of both commands
    assert (f"demo.agent --url ws://127.0.0.1:{port}/client --key" in told) is elsewhere
    assert (f"--gateway http://127.0.0.1:{port} --say" in told) is elsewhere
    assert "1337" not in told or not elsewhere


def test_the_log_is_not_flooded_with_addresses_of_visitors() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        configure_logging("info", "console")
        assert not logging.getLogger("aioice.ice").isEnabledFor(logging.INFO)
        assert logging.getLogger("aioice.ice").isEnabledFor(logging.WARNING)
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
