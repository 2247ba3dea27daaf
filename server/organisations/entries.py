"""Reads what an operator wrote about organisations: a JSON or YAML document, or the fields of a Redis hash.

The shape of the document (all parts but the keys may be missing; limits of 0 are none):

    org_main:
      name: Acme
      keys: [pk_live_…, {sha256: <hex>, preview: pk_ab12…9f3e, name: laptop, created: 2026-01-31T12:00:00Z}]
      credentials: {deepgram: …, elevenlabs: …, openai: …}
      twilio: {account_sid: AC…, auth_token: …}
      limits: {connections: 20, agents: 500, calls: 50, chats: 100}

An error says where something is wrong and what would be right, and never what stood there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, cast

import msgspec
import yaml

from server.auth import digest_of, redact
from server.keys import is_key
from server.organisations.roll import VENDORS, KnownKey, Limits, Organisation, Roll, TwilioAccess

_ORG_ID: Final = r"^[A-Za-z0-9_-]{1,64}$"
_Count = Annotated[int, msgspec.Meta(ge=0)]
_MAX_TEXT: Final = 200
_Text = Annotated[str, msgspec.Meta(max_length=_MAX_TEXT)]
_Secret = Annotated[str, msgspec.Meta(min_length=1, max_length=400)]


class BadEntry(ValueError):
    """It cannot be used. One line, safe to log."""


class _Plain(yaml.SafeLoader):
    """YAML whose dates are text, as they are in JSON, and whose mappings say everything once."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Of two entries with one name the first would be lost, with all its keys."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode):
                _note(seen, name.value, f"line {name.start_mark.line + 1}: ")
        return node


class LimitsEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`limits`."""

    connections: _Count = 0
    agents: _Count = 0
    calls: _Count = 0
    chats: _Count = 0


class TwilioEntry(msgspec.Struct, forbid_unknown_fields=True):
    """`twilio`."""

    account_sid: Annotated[str, msgspec.Meta(pattern=r"^AC[0-9a-fA-F]{32}$")]
    auth_token: _Secret


class KeyEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A key: itself (`key`), or what is left of it once it was shown (`sha256`, `preview`)."""

    key: str = ""
    sha256: str = ""
    preview: _Text = ""
    name: _Text = ""
    created: _Text = ""


class OrganisationEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One organisation as it is written down."""

    name: _Text = ""
    keys: list[str | KeyEntry] = []
    credentials: dict[str, _Secret] = {}
    twilio: TwilioEntry | None = None
    limits: LimitsEntry | None = None


Document = dict[str, OrganisationEntry]


def read_document(text: bytes, *, as_json: bool) -> Document:
    """The entries of a file, by organisation. Raises BadEntry."""
    form = "JSON" if as_json else "YAML"
    try:
        raw: object = json.loads(text, object_pairs_hook=_once) if as_json else yaml.load(text, _Plain)
    except BadEntry:
        raise
    except json.JSONDecodeError as error:
        raise BadEntry(f"is not JSON, line {error.lineno}") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise BadEntry(f"is not YAML{line}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        # Also what no parser of these two calls an error: numbers like `0x_` or of 5000 digits, brackets without end.
        raise BadEntry(f"is not {form}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise BadEntry("must map organisations to what belongs to them")
    entries = cast("dict[object, object]", raw)
    return {_org_id(org_id): read_entry(str(org_id), entry or {}) for org_id, entry in entries.items()}


def read_entry(org_id: str, raw: object) -> OrganisationEntry:
    """One organisation's entry. Raises BadEntry."""
    try:
        entry = msgspec.convert(raw, OrganisationEntry)
    except msgspec.ValidationError as error:
        # "Expected `int`, got `str` - at `$.limits.agents`": names and types, never values.
        what, _, where = str(error).partition(" - at `$")
        raise BadEntry(f"{org_id}{where.rstrip('`')}: {what}") from None
    unknown = sorted(set(entry.credentials) - set(VENDORS))
    if unknown:
        raise BadEntry(f"{org_id}.credentials: {unknown[0]!r} is none of {', '.join(VENDORS)}")
    return entry


def read_hash(org_id: str, fields: Mapping[str, str]) -> Organisation:
    """An organisation from a hash: `name`, and `limits`, `twilio`, `credentials` as JSON. Raises BadEntry."""
    raw: dict[str, object] = {}
    for name, value in fields.items():
        if name in ("limits", "twilio", "credentials"):
            try:
                raw[name] = msgspec.json.decode(value)
            except (msgspec.DecodeError, RecursionError):
                raise BadEntry(f"{org_id}.{name}: is not JSON") from None
        elif name == "name":
            raw[name] = value
        else:
            raise BadEntry(f"{org_id}: {name!r} is none of name, limits, twilio, credentials")
    return organisation(org_id, read_entry(org_id, raw))


def roll_of(document: Document) -> Roll:
    """What a document says. Raises BadEntry when a key cannot be one, or belongs to two organisations."""
    keys: dict[bytes, KnownKey] = {}
    for org_id, entry in document.items():
        for number, one in enumerate(entry.keys, start=1):
            key = known_key(org_id, one if isinstance(one, KeyEntry) else KeyEntry(key=one), number)
            other = keys.setdefault(key.digest, key)
            if other is not key:
                raise BadEntry(f"{org_id}.keys: entry {number} is also a key of {other.org_id}")
    return Roll({org_id: organisation(org_id, entry) for org_id, entry in document.items()}, tuple(keys.values()))


def known_key(org_id: str, entry: KeyEntry, number: int = 1) -> KnownKey:
    """What is known of one key. Raises BadEntry; `number` is its place in the list."""
    where = f"{org_id}.keys: entry {number}"
    if bool(entry.key) == bool(entry.sha256):
        raise BadEntry(f"{where} needs either the key or its sha256")
    if entry.key:
        if not is_key(entry.key):
            raise BadEntry(f"{where} must be 'pk_…', at least 8 printable characters without space")
        return KnownKey(digest_of(entry.key), org_id, redact(entry.key), entry.name, entry.created)
    try:
        digest = bytes.fromhex(entry.sha256)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise BadEntry(f"{where}: sha256 must be 64 hexadecimal digits")
    return KnownKey(digest, org_id, entry.preview or "pk_…", entry.name, entry.created)


def organisation(org_id: str, entry: OrganisationEntry) -> Organisation:
    """What an entry says beside its keys."""
    limits, twilio = entry.limits or LimitsEntry(), entry.twilio
    return Organisation(
        org_id=org_id,
        name=entry.name,
        limits=Limits(limits.connections, limits.agents, limits.calls, limits.chats),
        credentials=dict(entry.credentials),
        twilio=None if twilio is None else TwilioAccess(twilio.account_sid, twilio.auth_token),
    )


def is_text(text: str) -> bool:
    """Whether it can be a key's name: short, and nothing in it that a terminal obeys."""
    return len(text) <= _MAX_TEXT and text.isprintable()


def is_org_id(text: str) -> bool:
    """Whether it can name an organisation: letters, digits, `_` and `-`, at most 64."""
    try:
        msgspec.convert(text, Annotated[str, msgspec.Meta(pattern=_ORG_ID)])
    except msgspec.ValidationError:
        return False
    return True


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    seen: set[str] = set()
    for name, _ in pairs:
        _note(seen, name, "")
    return dict(pairs)


def _note(seen: set[str], name: str, where: str) -> None:
    """Raises BadEntry for a name that is there already; it may be a key in a wrong place."""
    if name in seen:
        shown = redact(name) if name.startswith("pk_") else repr(name[:64])
        raise BadEntry(f"{where}{shown} is written twice")
    seen.add(name)


def _org_id(name: object) -> str:
    if not isinstance(name, str) or not is_org_id(name):
        raise BadEntry("an organisation's id must be letters, digits, '_' or '-', at most 64")
    return name
