"""What the HTTP API for SDKs and the command line answers, as types: they are the schema at `/openapi.json`.

Keys are the clients' own, so some are camelCase. Fields that were not given are left out; `null` is only where it says.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from server.api.errors import JsonAnswer


class Shape(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def answer(self) -> JsonAnswer:
        """As it is sent, with status 200."""
        return JsonAnswer(self.model_dump(by_alias=True, exclude_unset=True))


class Success(Shape):
    """An answer that says it is one: clients look."""

    success: Literal[True]


class Problem(Shape):
    """The body of every error; `error` and `detail` say the same, for clients of different ages."""

    success: Literal[False]
    error: str
    detail: str
    code: str


class Language(Shape):
    """A language a voice speaks; `code` may be a locale."""

    code: str
    name: str
    flag: str = ""
    native_name: str = Field(default="", serialization_alias="nativeName")
    region: str = ""


class Voice(Shape):
    """A voice; `provider/alias` names it in configurations."""

    id: str
    name: str
    alias: str
    provider: str
    gender: str = ""
    style: str = ""
    description: str = ""
    languages: list[Language]
    preview_url: str | None

    def row(self) -> bytes:
        """As it stands in an answer."""
        return self.model_dump_json(by_alias=True, exclude_unset=True).encode()


class VoiceList(Success):
    """`GET /api/sdk/voices`."""

    total: int
    voices: list[Voice]


class Phone(Shape):
    """A number in E.164 form. `sid` is the carrier's, empty for one that is not in the account; `isSdk`: an agent of
    the organisation is on it now."""

    number: str
    name: str
    sid: str
    is_sdk: bool = Field(serialization_alias="isSdk")


class PhoneList(Success):
    """`GET /api/sdk/phone-numbers`."""

    total: int
    phones: list[Phone]


class CarrierBalance(Success):
    """`GET /api/sdk/twilio-balance`: a decimal number as text."""

    balance: str
    currency: str


class ChannelCount(Shape):
    """Channels of one type: how many, and what they are called where they have a name."""

    count: int
    refs: list[str]


class ConnectedAgent(Shape):
    """An agent whose program is connected."""

    slug: str
    org_id: str
    phones: list[str]
    active: bool
    channels: dict[str, ChannelCount]


class AgentList(Success):
    """`GET /api/sdk/agents`. The maps lead from a number to the agent that answers there, or would for its callers."""

    total: int
    agents: list[ConnectedAgent]
    phone_map: dict[str, str]
    dev_overrides: dict[str, str]
    dev_callers: list[str]


class Displaced(Success):
    """`DELETE /api/sdk/agents/{agent}`."""

    displaced: str
    org_id: str


class PlanLimits(Shape):
    """999 and more is shown as no limit."""

    phones: int
    concurrent_calls: int = Field(serialization_alias="concurrentCalls")
    agents: int


class PlanDetails(Shape):
    """What the command line shows of a plan."""

    display: str
    credits: int
    limits: PlanLimits


class Account(Shape):
    """`GET /api/orgs/me`: there is no plan here, and nothing is charged."""

    name: str
    slug: str
    plan: Literal["self_hosted"]
    plan_details: PlanDetails = Field(serialization_alias="planDetails")
    credits: int
    credit_limit: int | None = Field(serialization_alias="creditLimit")
    email: str
    verified: bool


class AccountStats(Shape):
    """`GET /api/orgs/me/stats`: numbers that a host rents out; here they are the operator's own."""

    managed_phones: int = Field(serialization_alias="managedPhones")
