"""What Redis does in one step for `server.store.redis`: Lua, and the names of the keys.

A claim is an agent's (`vg:<org>:agent:<slug>`, a string: node, space, connection) or a number's
(`vg:number:<number>`, a hash: `org`, and for each agent on it `p <slug>` for production or `o <slug>` for others,
with its node as value). A claim counts while the lease of its node (`vg:node:<id>`) is there. The scripts reach the
leases of other nodes by names that they compose, which Redis Cluster does not allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from server.store.base import AgentKey, token_digest

_LEASE: Final = "vg:node:"
PUT_BACK: Final = "*"
"""In place of who may be replaced: whatever this node has there, for this node knows better."""

_RENEW: Final = """
-- KEYS: this node's lease. ARGV: its new value, its life in ms. Answers the old value and which Redis this is.
local before = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {before, string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')}
"""

_LEAVE: Final = """
-- KEYS: this node's lease.
return {redis.call('DEL', KEYS[1])}
"""

_CLAIM_AGENT: Final = """
-- KEYS: the claim, this node's lease. ARGV: prefix of leases, node, ms of the claim, holder, replacing. Answers {1}, or
-- {0, holder, its node, that node's lease}, all of them empty if this node has no lease.
if redis.call('EXISTS', KEYS[2]) == 0 then return {0, '', '', ''} end
local claim = redis.call('GET', KEYS[1])
if claim then
  local node, holder = string.match(claim, '^(%S+) (.*)$')
  if node ~= ARGV[2] then
    local lease = redis.call('GET', ARGV[1] .. node)
    if lease then return {0, holder, node, lease} end
  elseif holder ~= ARGV[4] and holder ~= ARGV[5] and ARGV[5] ~= '*' then
    return {0, holder, node, ''}
  end
end
redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. ARGV[4], 'PX', ARGV[3])
return {1}
"""

_HOLDER_OF_AGENT: Final = """
-- KEYS: the claim. ARGV: prefix of leases. Answers the holder, or '' where the claim does not count.
local node, holder = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (.*)$')
if not node or redis.call('EXISTS', ARGV[1] .. node) == 0 then return {''} end
return {holder}
"""

_RELEASE_AGENT: Final = """
-- KEYS: the claim. ARGV: node. Frees what this node has.
local claim = redis.call('GET', KEYS[1])
if claim and string.match(claim, '^%S+') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {1}
"""

_CLAIM_NUMBER: Final = """
-- KEYS: the number, this node's lease. ARGV: prefix of leases, node, ms of the claim, org, field of the agent, field
-- that may be replaced. Answers {1}, or {0, org and slug in the way, its node, that node's lease}, all of them empty if
-- this node has no lease.
if redis.call('EXISTS', KEYS[2]) == 0 then return {0, '', '', ''} end
local org, taken, anybody
local nodes = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local field, node = all[i], all[i + 1]
  if field == 'org' then
    org = node
  elseif node ~= ARGV[2] and redis.call('EXISTS', ARGV[1] .. node) == 0 then
    redis.call('HDEL', KEYS[1], field)
  else
    nodes[field] = node
    anybody = anybody or field
    if string.sub(field, 1, 1) == 'p' then taken = field end
  end
end
local way
local putback = ARGV[6] == '*'
if anybody and org ~= ARGV[4] then
  way = taken or anybody
elseif putback and nodes[ARGV[5]] and nodes[ARGV[5]] ~= ARGV[2] then
  way = ARGV[5]
elseif string.sub(ARGV[5], 1, 1) == 'p' and taken and taken ~= ARGV[5] then
  if nodes[taken] == ARGV[2] and (putback or taken == ARGV[6]) then
    redis.call('HDEL', KEYS[1], taken)
  else
    way = taken
  end
end
if way then
  local node = nodes[way]
  local lease = node ~= ARGV[2] and redis.call('GET', ARGV[1] .. node) or ''
  return {0, org .. ' ' .. string.sub(way, 3), node, lease}
end
redis.call('HSET', KEYS[1], 'org', ARGV[4], ARGV[5], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {1}
"""

_RELEASE_NUMBER: Final = """
-- KEYS: the number. ARGV: node, field of the agent. Frees what this node has.
if redis.call('HGET', KEYS[1], ARGV[2]) == ARGV[1] then redis.call('HDEL', KEYS[1], ARGV[2]) end
if redis.call('HLEN', KEYS[1]) == 1 then redis.call('DEL', KEYS[1]) end
return {1}
"""

_IN_PRODUCTION: Final = """
-- KEYS: the number. ARGV: prefix of leases. Answers {1} when a node that is there has a production agent on it.
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 2) == 'p ' and redis.call('EXISTS', ARGV[1] .. all[i + 1]) == 1 then return {1} end
end
return {0}
"""

_KEEP_CALLERS: Final = """
-- KEYS: the callers, the agent's claim. ARGV: prefix of leases, node, callers ('' forgets), ms. An agent that
-- another node has by now is that node's business.
local node = string.match(redis.call('GET', KEYS[2]) or '', '^%S+')
if node and node ~= ARGV[2] and redis.call('EXISTS', ARGV[1] .. node) == 1 then return {0} end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return {1}
"""


@dataclass(frozen=True, slots=True)
class OnNumber:
    """That an agent is on a number."""

    number: str
    agent: AgentKey


Claim = AgentKey | OnNumber


@dataclass(frozen=True, slots=True)
class InTheWay:
    """Who has what was claimed, its node, and that node's lease; all empty if the claiming node has no lease."""

    who: str
    node: str
    lease: str


def in_the_way(answer: Sequence[bytes | int | None]) -> InTheWay | None:
    """What a claim script answers; None when the claim was granted."""
    if answer[0] == 1:
        return None
    return InTheWay(*(str(part, "utf-8") for part in answer[1:] if isinstance(part, bytes)))


@dataclass(frozen=True, slots=True)
class Call:
    """A script with what it works on."""

    script: str
    keys: tuple[str, ...]
    arguments: tuple[str | bytes | int, ...]


@dataclass(frozen=True, slots=True)
class Claimant:
    """What one node asks for. Times are in milliseconds."""

    node: str
    lease: int
    """How long it is believed to be there."""
    kept: int
    """How long its claims last."""

    def renew(self, value: str) -> Call:
        """It is there; each time with another value."""
        return Call(_RENEW, (_LEASE + self.node,), (value, self.lease))

    def leave(self) -> Call:
        """It is not there any more."""
        return Call(_LEAVE, (_LEASE + self.node,), ())

    def claim(self, claim: Claim, holder: str, replacing: str) -> Call:
        """It wants that; `holder` is for agents, `replacing` another holder or field."""
        keys = (claim_key(claim), _LEASE + self.node)
        if isinstance(claim, AgentKey):
            return Call(_CLAIM_AGENT, keys, (_LEASE, self.node, self.kept, holder, replacing))
        agent = (claim.agent.org_id, on_number(claim.agent))
        return Call(_CLAIM_NUMBER, keys, (_LEASE, self.node, self.kept, *agent, replacing))

    def release(self, claim: Claim) -> Call:
        """It has no use for that."""
        if isinstance(claim, AgentKey):
            return Call(_RELEASE_AGENT, (claim_key(claim),), (self.node,))
        return Call(_RELEASE_NUMBER, (claim_key(claim),), (self.node, on_number(claim.agent)))

    def keep_callers(self, agent: AgentKey, callers: bytes, ttl: int) -> Call:
        """It was told an agent's callers; none at all are forgotten."""
        return Call(_KEEP_CALLERS, (callers_key(agent), claim_key(agent)), (_LEASE, self.node, callers, ttl))


def holder_of(agent: AgentKey) -> Call:
    """Somebody wants to know who has it."""
    return Call(_HOLDER_OF_AGENT, (claim_key(agent),), (_LEASE,))


def in_production(number: str) -> Call:
    """Somebody wants to know whether it may be changed."""
    return Call(_IN_PRODUCTION, (f"vg:number:{number}",), (_LEASE,))


def claim_key(claim: Claim) -> str:
    """Where it is written who has it. A number belongs to one organisation, so its name cannot begin with one."""
    if isinstance(claim, AgentKey):
        return f"vg:{claim.org_id}:agent:{claim.slug}"
    return f"vg:number:{claim.number}"


def callers_key(agent: AgentKey) -> str:
    """Where a development agent's callers are kept."""
    return f"vg:{agent.org_id}:callers:{agent.slug}"


def on_number(agent: AgentKey) -> str:
    """The agent's field in a number's claim."""
    return ("p " if agent.production else "o ") + agent.slug


def token_key(token: str) -> str:
    """Where a token's value is. Who can read Redis learns no token that way."""
    return f"vg:token:{token_digest(token)}"
