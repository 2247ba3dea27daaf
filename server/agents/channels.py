"""The ways to reach an agent: what a channel is called, what it is compared by, and who is on which number. Pure.

A channel is echoed to the client exactly as it was written, and compared by its normalised form (protocol §2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from server.store.base import AgentKey
from transports.twilio.numbers import is_e164, is_sip, normalise
from wire.commands import ChannelAdd
from wire.layers import Layer

_WHATSAPP = "whatsapp:"
_MAX_REF = 256


class Refusal(Exception):
    """A command that is not carried out. `code` is the wire code; the text names no other code (protocol §1.8)."""

    def __init__(self, code: str, error: str, **fields: str | bool | float) -> None:
        super().__init__(error)
        self.code = code
        self.error = error
        self.fields = fields
        """Further keys of the `error` event."""


@dataclass(frozen=True, slots=True)
class WhatsAppAccess:
    """Credentials of a WhatsApp number. Never logged, never sent."""

    access_token: str = field(repr=False)
    verify_token: str = field(repr=False)
    app_secret: str = field(repr=False)
    phone: str
    """The number people see; clients tell it only once, so it is kept over reconnects."""


@dataclass(slots=True)
class Channel:
    """One way to an agent."""

    key: str
    """What it is found by: `+12025550142`, `user@host`, `whatsapp:<id>`, or the type."""
    type: str
    ref: str
    """As the client wrote it, or the type where it wrote none."""
    layer: Layer
    ringing: bool = False
    whatsapp: WhatsAppAccess | None = None
    added_by: str = ""
    """The connection that added it last: what a new connection does not add again has been dropped by its program."""

    @property
    def owned(self) -> bool:
        """Whether it can belong to one agent only (numbers, SIP addresses, WhatsApp ids)."""
        return self.type in ("phone", "whatsapp")


def channel_key(type_: str, ref: str) -> str:
    """What two spellings of one channel have in common. Raises `Refusal` for one that cannot be."""
    if len(ref) > _MAX_REF:
        raise Refusal("BAD_REQUEST", "ref: too long")
    if type_ == "phone":
        key = normalise(ref)
        if not (is_sip(ref) and "@" in key) and not is_e164(key):
            raise Refusal("BAD_REQUEST", "ref: a phone channel needs a number in E.164 form or a SIP address", ref=ref)
        return key
    if type_ == "whatsapp":
        if not ref:
            raise Refusal("BAD_REQUEST", "ref: a whatsapp channel needs its phone number id")
        return _WHATSAPP + ref
    return ref or type_


def new_channel(command: ChannelAdd, key: str, layer: Layer, previous: Channel | None) -> Channel:
    """The channel that a command describes; `previous` is the one it replaces."""
    whatsapp = None
    if command.type == "whatsapp":
        if not command.access_token:
            raise Refusal("BAD_REQUEST", "accessToken: a whatsapp channel needs its credentials", ref=command.ref)
        known = previous.whatsapp.phone if previous is not None and previous.whatsapp is not None else ""
        whatsapp = WhatsAppAccess(
            access_token=command.access_token,
            verify_token=command.verify_token or "pinecall-wa-verify",
            app_secret=command.app_secret,
            phone=command.phone or known,
        )
    ref = command.ref or command.type
    return Channel(key, command.type, ref, layer, ringing=command.ringing, whatsapp=whatsapp)


def find_channel(channels: Iterable[Channel], ref: str, type_: str = "") -> Channel | None:
    """The channel a client means: by what it wrote when adding it (or the type), else by number."""
    candidates = [channel for channel in channels if not type_ or channel.type == type_]
    wanted = ref or type_
    keys = (normalise(wanted), _WHATSAPP + wanted)
    by_ref = (channel for channel in candidates if channel.ref == wanted)
    by_key = (channel for channel in candidates if channel.key in keys)
    return next(by_ref, None) or next(by_key, None)


class Numbers:
    """Which agents are on which number. Several only where development agents share one (behaviour §4)."""

    def __init__(self) -> None:
        self._on: dict[str, dict[AgentKey, None]] = {}

    def put(self, key: str, agent: AgentKey) -> None:
        """The agent is on that number."""
        self._on.setdefault(key, {})[agent] = None

    def take(self, key: str, agent: AgentKey) -> None:
        """It no longer is."""
        agents = self._on.get(key, {})
        agents.pop(agent, None)
        if not agents:
            self._on.pop(key, None)

    def __iter__(self) -> Iterator[tuple[str, list[AgentKey]]]:
        return iter([(key, list(agents)) for key, agents in self._on.items()])

    def called(self, raw: str, of_org: Callable[[str], bool] = lambda _: True) -> tuple[str, list[AgentKey]]:
        """The key that a dialled number or address means, and who is on it.

        A SIP address that is on no list also finds the only one with the same user part (behaviour §3.2), or the number
        that this part is, among the organisations that `of_org` says the call may be for.
        """
        key = normalise(raw)
        agents = self._on.get(key)
        user = key.partition("@")[0] if is_sip(raw) else ""
        if agents is None and user:
            number = normalise(user)
            alike = [
                known
                for known, on in self._on.items()
                if (known.startswith(user + "@") or known == number) and any(of_org(agent.org_id) for agent in on)
            ]
            if len(alike) == 1:
                key = alike[0]
                agents = self._on[key]
        return key, list(agents or ())
