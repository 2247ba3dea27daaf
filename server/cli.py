"""The command line: `voice-gateway serve | demo | call | keys | check`."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import socket
import sys
from pathlib import Path

import structlog

from server.settings import Settings, SettingsError, load_settings


def main() -> None:
    """Entry point of `voice-gateway`."""
    parser = argparse.ArgumentParser(prog="voice-gateway", description="A self-hosted voice gateway.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the gateway")
    serve.add_argument("--quiet", action="store_true", help="do not print what to do next")
    demo = commands.add_parser("demo", help="a whole phone call with a demo agent, here in the terminal")
    demo.add_argument("--wav", type=Path, default=Path("var/demo-call.wav"), help="where the stereo recording goes")
    call = commands.add_parser("call", help="ring an agent without a phone or a carrier")
    call.add_argument("--to", required=True, help="the number to ring, such as +15550100100")
    call.add_argument("--from", dest="caller", default="+15550100199", help="the caller's number")
    call.add_argument("--gateway", default="", help="origin of the gateway (default: http://127.0.0.1:PORT)")
    call.add_argument("--say", action="append", default=[], help="a line to speak; may be repeated, one an answer")
    call.add_argument("--wav", type=Path, action="append", default=[], help="a WAV file (16-bit) to speak first")
    call.add_argument("--record", type=Path, help="write the call as a stereo WAV")
    _describe_keys(commands.add_parser("keys", help="make, list and revoke API keys (API_KEYS_FILE, else Redis)"))
    check = commands.add_parser("check", help="is everything there that calls need, and what to do where it is not")
    check.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    try:
        code = _run(options)
    except SettingsError as error:
        sys.stderr.write(f"voice-gateway: {error}\n")
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _describe_keys(keys: argparse.ArgumentParser) -> None:
    actions = keys.add_subparsers(dest="action", required=True)
    make = actions.add_parser("make", help="make a key; it is shown this once")
    make.add_argument("--org", default="org_main", help="the organisation it opens (default: org_main)")
    make.add_argument("--name", default="", help="what it is for, such as 'laptop of Ana'")
    make.add_argument("--publishable", action="store_true", help="a key for web pages, which opens nothing by itself")
    listing = actions.add_parser("list", help="show which keys there are; never the keys themselves")
    listing.add_argument("--org", default="", help="of this organisation only")
    listing.add_argument("--json", action="store_true", help="for programs")
    revoke = actions.add_parser("revoke", help="revoke a key: sockets opened with it are closed within seconds")
    revoke.add_argument("key", help="the key, its preview (pk_ab12…9f3e), its name, or the beginning of its SHA-256")


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "serve":
            return _serve(quiet=options.quiet)
        case "demo":
            return _demo(options.wav)
        case "keys":
            from server.keys_command import run_keys_command

            return run_keys_command(options, _settings())
        case "check":
            from server.check.command import run_check_command

            return run_check_command(options, _settings)
        case _:
            return _call(options)


def _settings() -> Settings:
    return load_settings(Path(os.environ.get("VOICE_GATEWAY_ENV_FILE", ".env")))


def _serve(*, quiet: bool) -> int:
    # Imported here: the engines take a second to load, which `--help` and a bad setting need not wait for.
    from providers.errors import ProviderError
    from server.app import create_server
    from server.auth import Keys
    from server.console.state import open_organisation
    from server.demo_agent import DemoAgent
    from server.engines import Engines
    from server.keys import DEFAULT_ORGANISATION, load_or_create_key
    from server.logs import configure_logging

    settings = _settings()
    configure_logging(settings.log_level, settings.log_format)
    known = [(key.organisation, key.key.get_secret_value()) for key in settings.organisation_keys]
    shown = None
    if not known and settings.api_keys_file is None:
        stored = load_or_create_key(settings.data_dir)
        known = [(DEFAULT_ORGANISATION, stored.key.get_secret_value())]
        shown = stored.key.get_secret_value() if stored.created else f"(in {settings.data_dir / 'api_key'})"
    try:
        engines = Engines(settings)
    except ProviderError as error:
        sys.stderr.write(f"voice-gateway: {error}\n")
        return 1
    taken = _cannot_listen(settings)
    if taken:
        sys.stderr.write(f"voice-gateway: {taken}\n")
        return 1
    server = create_server(settings, Keys(known), engines)
    if settings.demo_agent and open_organisation(settings) is not None:
        server.demo = DemoAgent(known[0][1])
    _warn(settings)
    if not quiet:
        _next_steps(settings, shown, demo=server.demo is not None)
    server.run()
    return 0 if server.started else 1


def _cannot_listen(settings: Settings) -> str:
    """Why the port cannot be had, in one line; empty when it can."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
    except OSError as error:
        why = f"HOST, PORT: cannot listen on {settings.host}:{settings.port} ({error.strerror or error})"
        free = f"; take another, such as PORT={settings.port % 65535 + 1}" if error.errno == errno.EADDRINUSE else ""
        return why + free
    return ""


def _warn(settings: Settings) -> None:
    """Settings that work and are probably not meant."""
    log = structlog.get_logger(__name__)
    public, token = settings.public_url, settings.twilio_auth_token
    if public is not None and not public.startswith("https://"):
        log.warning("public_url_is_not_https", why="the carrier opens media streams over TLS only")
    if public is not None and token is None and settings.twilio_validate_signature:
        log.warning("no_twilio_auth_token", why="nothing can be verified, so no webhook will be accepted")
    if token is not None and public is None:
        log.warning("no_public_url", why="signatures are made over the public address of the webhook")


def _next_steps(settings: Settings, key: str | None, *, demo: bool) -> None:
    origin = settings.public_url or f"http://{settings.host}:{settings.port}"
    keys = "the keys of API_KEYS and API_KEYS_FILE" if key is None else key
    here = os.path.relpath(Path(sys.executable).parent)
    vendors = ", ".join(sorted(settings.vendor_keys)) or "none set: calls run on the built-in local engines"
    what = "press Talk: the demo agent takes a table booking" if demo else "sign in with a key"
    near = f"127.0.0.1:{settings.port}"
    url = "" if settings.port == 1337 else f" --url ws://{near}/client"
    gateway = "" if settings.port == 1337 else f" --gateway http://{near}"
    agent = "" if demo else f"{here}/python -m demo.agent{url} --key pk_…   and in another terminal:\n                 "
    ring = f'{here}/voice-gateway call --to +15550100100{gateway} --say "hello i would like to book a table"'
    first = f"\n  console        open {origin}   and {what}\n" if settings.console else ""
    sys.stdout.write(
        f"""
voice gateway on {origin}
{first}
  key            {keys}
  vendor keys    {vendors}
  agents         new Pinecall({{ apiKey, apiUrl: "{origin}" }})     (SDK 0.1.x: url: "ws…/client")
  Twilio         voice webhook: POST {origin}/twilio/voice
  try it         {here}/voice-gateway demo      a whole call, here in the terminal
                 {agent}{ring}

"""
    )
    sys.stdout.flush()


def _demo(wav: Path) -> int:
    from demo.show import DemoFailed, show
    from demo.voice import NoVoice

    def out(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    failures: tuple[BaseException, ...] = ()
    shown = None
    try:
        shown = asyncio.run(show(out, colour=sys.stdout.isatty()))
        wav.parent.mkdir(parents=True, exist_ok=True)
        wav.write_bytes(shown.wav)
        out(f"the call, caller left and bot right: {wav}")
    except* (DemoFailed, NoVoice) as group:
        failures = group.exceptions
    for failure in failures:
        sys.stderr.write(f"demo: {failure}\n")
    return 0 if shown is not None and shown.booked else 1


def _call(options: argparse.Namespace) -> int:
    from demo.ring import CallPlan, ring

    settings = _settings()
    token = settings.twilio_auth_token
    plan = CallPlan(
        gateway=options.gateway or f"http://127.0.0.1:{settings.port}",
        to=options.to,
        caller=options.caller,
        lines=tuple(options.say),
        files=tuple(options.wav),
        record=options.record,
        auth_token=None if token is None else token.get_secret_value(),
        public_url=settings.public_url,
    )
    return asyncio.run(ring(plan))


if __name__ == "__main__":
    main()
