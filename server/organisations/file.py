"""`API_KEYS_FILE`: read at the start, followed while the gateway runs, and written by `voice-gateway keys`."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

import msgspec
import structlog
import yaml

from server.auth import Source
from server.organisations.directory import Organisations
from server.organisations.entries import BadEntry, Document, read_document, roll_of
from server.organisations.roll import Roll

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
"""How often it is looked at."""
MAX_BYTES: Final = 16 * 1024 * 1024

_Look = tuple[int, int, int]


class OrganisationsFile:
    """The file. A JSON document if its name ends in `.json`, else YAML."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._as_json = path.suffix.lower() == ".json"
        self._seen: _Look | None = None

    def load(self) -> Roll:
        """What it says. Raises BadEntry. Blocking file access, here and in `document` and `write`."""
        self._seen = self._look()
        return roll_of(self.document())

    def document(self) -> Document:
        """What is written in it. Raises BadEntry, also when there is no such file."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            raise BadEntry("there is no such file; `voice-gateway keys make` begins one") from None
        except OSError as error:
            raise BadEntry(f"cannot be read ({error.strerror or type(error).__name__})") from None
        if len(text) > MAX_BYTES:
            raise BadEntry(f"is larger than {MAX_BYTES >> 20} MB")
        return read_document(text, as_json=self._as_json)

    def write(self, document: Document) -> None:
        """Replace it, whole or not at all, readable by its owner only. Raises BadEntry. Comments in it are lost."""
        raw = cast("dict[str, object]", msgspec.to_builtins(document))
        text = (
            msgspec.json.format(msgspec.json.encode(raw), indent=2).decode() + "\n"
            if self._as_json
            else yaml.safe_dump(raw, allow_unicode=True, sort_keys=False)
        )
        draft = ""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # mkstemp makes it 0600.
            handle, draft = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(handle)
            os.replace(draft, self.path.resolve())
        except OSError as error:
            with suppress(OSError):
                os.unlink(draft)
            raise BadEntry(f"cannot be written ({error.strerror or type(error).__name__})") from None

    async def follow(self, organisations: Organisations) -> None:
        """Read it again whenever it changes. Runs until cancelled. A file that cannot be used changes nothing."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                roll = await asyncio.to_thread(self._load_changed)
            except BadEntry as bad:
                log.error("api_keys_file_unusable", file=str(self.path), why=str(bad), kept="what it said before")
                continue
            except Exception:
                # The root of this work: what nobody foresaw must not take the gateway with it.
                log.exception("api_keys_file_unusable", file=str(self.path), kept="what it said before")
                continue
            if roll is not None:
                organisations.learn(Source.FILE, roll)

    def _load_changed(self) -> Roll | None:
        return self.load() if self._look() != self._seen else None

    def _look(self) -> _Look | None:
        """What tells one state of the file from another; None when there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
