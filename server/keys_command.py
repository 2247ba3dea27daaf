"""`voice-gateway keys make | list | revoke`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from server.logs import configure_logging
from server.organisations.keyring import Keyring, KeyringError, ListedKey
from server.settings import Settings


def run_keys_command(options: argparse.Namespace, settings: Settings) -> int:
    """Carry it out; the answer is the exit code: 0 done, 1 not done."""
    configure_logging("critical", "console")
    try:
        match options.action:
            case "make":
                _make(options, Keyring(settings))
            case "list":
                _list(options, Keyring(settings))
            case _:
                one = asyncio.run(Keyring(settings).revoke(options.key))
                sys.stdout.write(f"revoked {_line(one)}\n")
    except KeyringError as error:
        sys.stderr.write(f"voice-gateway: {error}\n")
        return 1
    return 0


def _make(options: argparse.Namespace, keyring: Keyring) -> None:
    key, place = asyncio.run(keyring.make(options.org, options.name, publishable=options.publishable))
    # The key alone goes to the standard output, so that a script can take it from there.
    sys.stderr.write(f"A key for {options.org}, noted in {place}. It is not shown again:\n")
    sys.stderr.flush()
    sys.stdout.write(key + "\n")


def _list(options: argparse.Namespace, keyring: Keyring) -> None:
    found = asyncio.run(keyring.listed(options.org))
    if options.json:
        rows = [
            {
                "preview": one.key.preview,
                "org": one.key.org_id,
                "name": one.key.name,
                "created": one.key.created,
                "place": one.place,
                "sha256": one.key.digest.hex(),
            }
            for one in found
        ]
        sys.stdout.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
        return
    for one in found:
        sys.stdout.write(_line(one) + "\n")
    if not found:
        sys.stderr.write("There are no keys; `voice-gateway keys make` makes one.\n")


def _line(one: ListedKey) -> str:
    key = one.key
    return f"{key.preview:<14}  {key.org_id:<16}  {key.created or '–':<20}  {one.place:<13}  {key.name}".rstrip()
