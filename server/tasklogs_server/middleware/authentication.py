"""Who may call what: one rule for each RPC; a method without a rule is closed to everyone.

The rule is enforced before a request is decoded. What it says of tasks and owners needs the
request, and is enforced by the handlers, all through `domain.caller`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, assert_never

import grpc

from tasklogs_server.domain.caller import LOCAL, Agent, Caller, User
from tasklogs_server.domain.errors import PermissionDenied, Unauthenticated
from tasklogs_server.limits.caller_limits import CallerLimits
from tasklogs_server.tasks.agent_tokens import AgentTokens, claimed_by, looks_like_an_agent_token
from tasklogs_server.telemetry.calls import concerns

Context = grpc.aio.ServicerContext[Any, Any]
Admit = Callable[[Context], Awaitable[Caller | None]]
"""Returns who calls, None where that does not matter. Raises what the caller is refused with."""
Users = Callable[[Context], Awaitable[User]]
"""Returns the user who calls. Raises Unauthenticated."""


class Rule(Enum):
    """Who may call a method."""

    PUBLIC = auto()
    """Anyone."""
    AUTHENTICATED = auto()
    """Any user."""
    OWN_TASK = auto()
    """The task's owner, and admins; to others there is no such task (`visible`)."""
    OWN_NAME = auto()
    """Any user in their own name, admins in any (`User.owner_of_new`, `User.owner_to_list`)."""
    ADMIN = auto()
    """Admins."""
    AGENT = auto()
    """The agent of the task that its token names."""


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "/tasklogs.v1.TaskLogs/GetTaskLogs": Rule.OWN_TASK,
        "/tasklogs.v1.TaskLogs/FollowTaskLogs": Rule.OWN_TASK,
        "/tasklogs.v1.Tasks/CreateTask": Rule.OWN_NAME,
        "/tasklogs.v1.Tasks/GetTask": Rule.OWN_TASK,
        "/tasklogs.v1.Tasks/ListTasks": Rule.OWN_NAME,
        "/tasklogs.v1.Tasks/DeleteTask": Rule.OWN_TASK,
        "/tasklogs.v1.Tasks/ReportBuild": Rule.OWN_TASK,
        "/tasklogs.v1.Tasks/ReportAgent": Rule.OWN_TASK,
        "/tasklogs.v1.Tasks/RotateAgentToken": Rule.OWN_TASK,
        "/tasklogs.v1.TaskAgents/Connect": Rule.AGENT,
        "/tasklogs.v1.TaskAgents/UploadLogSnapshot": Rule.AGENT,
        # Probes have no credentials.
        "/grpc.health.v1.Health/Check": Rule.PUBLIC,
        "/grpc.health.v1.Health/List": Rule.PUBLIC,
        "/grpc.health.v1.Health/Watch": Rule.PUBLIC,
        # Every caller's address, and what they call.
        "/grpc.channelz.v1.Channelz/GetChannel": Rule.ADMIN,
        "/grpc.channelz.v1.Channelz/GetServer": Rule.ADMIN,
        "/grpc.channelz.v1.Channelz/GetServerSockets": Rule.ADMIN,
        "/grpc.channelz.v1.Channelz/GetServers": Rule.ADMIN,
        "/grpc.channelz.v1.Channelz/GetSocket": Rule.ADMIN,
        "/grpc.channelz.v1.Channelz/GetSubchannel": Rule.ADMIN,
        "/grpc.channelz.v1.Channelz/GetTopChannels": Rule.ADMIN,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Rule.AUTHENTICATED,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule.AUTHENTICATED,
    }
)


_CONNECT = "/tasklogs.v1.TaskAgents/Connect"

# Open for as long as their caller likes; an agent's is one per task anyway.
_STREAMS = frozenset(
    {
        "/tasklogs.v1.TaskLogs/FollowTaskLogs",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)


class Access:
    """Applies the rules. `users` tells who calls from what a call carries."""

    def __init__(self, users: Users, agents: AgentTokens, limits: CallerLimits) -> None:
        self._users = users
        self._agents = agents
        self._limits = limits

    def admission(self, method: str) -> Admit:
        """Return what lets callers of `method` in, or refuses them."""
        rule = RULES.get(method)
        match rule:
            case None:
                return _closed
            case Rule.PUBLIC:
                return self._stream_of_a_stranger if method in _STREAMS else _open
            case Rule.AUTHENTICATED | Rule.OWN_TASK | Rule.OWN_NAME:
                return self._stream_of_a_user if method in _STREAMS else self._user
            case Rule.ADMIN:
                return self._admin
            case Rule.AGENT:
                return self._agent_that_connects if method == _CONNECT else self._agent
            case _:
                assert_never(rule)

    async def _user(self, context: Context) -> Caller:
        user = await self._users(context)
        self._limits.take_call(user)
        return user

    async def _admin(self, context: Context) -> Caller:
        user = await self._users(context)
        self._limits.take_call(user)
        if not user.is_admin:
            raise PermissionDenied("only an admin may")
        return user

    async def _stream_of_a_user(self, context: Context) -> Caller:
        user = await self._user(context)
        self._limits.take_stream(user)
        return user

    async def _stream_of_a_stranger(self, _: Context) -> Caller | None:
        self._limits.take_strangers_stream()
        return None

    async def _agent_that_connects(self, context: Context) -> Caller:
        # Before its first message is waited for: such a stream holds a place among the agents'.
        token = bearer_of(context)
        claimed = None if token is None else claimed_by(token)
        refusal = None if claimed is None else self._limits.connects.refusal(claimed)
        if claimed is not None and refusal is not None:
            concerns(claimed.task_id)
            raise refusal
        agent = await self._agent(context)
        self._limits.connects.take(agent)
        return agent

    async def _agent(self, context: Context) -> Agent:
        token = bearer_of(context)
        if token is not None and looks_like_an_agent_token(token):
            agent = await self._agents.agent(token)
            concerns(agent.task_id)
            self._limits.take_call(agent)
            return agent
        user = LOCAL if token is None else await self._users(context)
        if user is not LOCAL:
            self._limits.take_call(user)
            raise PermissionDenied("only a task's agent may, with its own token")
        raise Unauthenticated("an agent token is needed: authorization: Bearer ...")


def bearer_of(context: Context) -> str | None:
    """Return the token of `authorization: Bearer ...` (RFC 6750); None where there is none.

    Raises Unauthenticated where there are two: proxies and we might take different ones.
    """
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if not values:
        return None
    scheme, _, token = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer":
        raise Unauthenticated("token invalid")
    return token.strip() or None


async def _closed(_: Context) -> Caller | None:
    raise PermissionDenied("this method is not served")


async def _open(_: Context) -> Caller | None:
    return None
