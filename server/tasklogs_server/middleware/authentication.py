"""Who calls, for each mode of authentication, and whether they may call the method.

The rule of each method is in `methods`. It is enforced here, before the request is read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import assert_never

from tasklogs.connection.limits import MAX_TOKEN_BYTES
from tasklogs_server.auth.client_certificates import user_of_certificate
from tasklogs_server.auth.verifier import TokenVerifier
from tasklogs_server.domain.caller import LOCAL, Agent, Caller, User
from tasklogs_server.domain.errors import PermissionDenied, TokenMissing, Unauthenticated
from tasklogs_server.limits.caller_limits import CallerLimits
from tasklogs_server.middleware.handlers import Context
from tasklogs_server.middleware.methods import Rule
from tasklogs_server.tasks.agent_tokens import AgentTokens, claimed_by, looks_like_an_agent_token
from tasklogs_server.telemetry.calls import concerns, current

Authenticate = Callable[[Context], Awaitable[Caller | None]]
"""Returns the caller, None where the method does not ask. Raises what the call is refused with."""
Users = Callable[[Context], Awaitable[User]]
"""Returns the user who calls. Raises Unauthenticated."""


class Authentication:
    """Applies the rules. `users` returns the user, given what a call carries."""

    def __init__(self, users: Users, agents: AgentTokens, limits: CallerLimits) -> None:
        self._users = users
        self._agents = agents
        self._limits = limits

    def of(self, rule: Rule, *, is_stream: bool) -> Authenticate:
        """Return what authenticates the callers of a method.

        `is_stream`: its responses are a stream, which is open for as long as the caller likes.
        """
        match rule:
            case Rule.CLOSED:
                return _closed
            case Rule.PUBLIC:
                return self._public_stream if is_stream else _public
            case Rule.AGENT:
                return self._connecting_agent if is_stream else self._agent
            case _ if self._users is local:
                return local  # an admin; callers cannot be told apart, and so have no limits
            case Rule.AUTHENTICATED | Rule.OWN_TASK | Rule.OWN_NAME:
                return self._user_of_stream if is_stream else self._user
            case Rule.USER_OR_AGENT:
                return self._user_or_agent
            case Rule.ADMIN:
                return self._admin
            case _:
                assert_never(rule)

    async def _user(self, context: Context) -> User:
        user = await self._users(context)
        self._limits.count_call(user)
        return user

    async def _user_or_agent(self, context: Context) -> Caller:
        token = bearer_of(context)
        if token is not None and looks_like_an_agent_token(token):
            return await self._agent(context)
        return await self._user(context)

    async def _admin(self, context: Context) -> User:
        user = await self._user(context)
        if not user.is_admin:
            raise PermissionDenied("requires the tasklogs:admin scope")
        return user

    async def _user_of_stream(self, context: Context) -> User:
        user = await self._user(context)
        self._limits.count_stream(user)
        return user

    async def _public_stream(self, _: Context) -> None:
        self._limits.count_public_stream()

    async def _connecting_agent(self, context: Context) -> Agent:
        # Refuse it before waiting for its first message: the stream would occupy a slot of the
        # agents' streams.
        token = bearer_of(context)
        claimed = None if token is None else claimed_by(token)
        refusal = None if claimed is None else self._limits.connects.refusal(claimed)
        if claimed is not None and refusal is not None:
            concerns(claimed.task_id)
            raise refusal
        agent = await self._agent(context)
        self._limits.connects.count(agent)
        return agent

    async def _agent(self, context: Context) -> Agent:
        token = bearer_of(context)
        if token is not None and looks_like_an_agent_token(token):
            agent = await self._agents.agent(token)
            concerns(agent.task_id)
            self._limits.count_call(agent)
            return agent
        user = LOCAL if token is None else await self._users(context)
        if user is not LOCAL:
            self._limits.count_call(user)
            raise PermissionDenied("requires the agent token of a task")
        if token is not None:
            raise Unauthenticated("the token is not an agent token")
        raise TokenMissing("an agent token is needed: authorization: Bearer ...")


async def local(_: Context) -> User:
    """Return the user without authentication: every caller is `local`, who is an admin."""
    return LOCAL


def by_token(
    verifier: TokenVerifier, agents: AgentTokens, count_call: Callable[[Agent], None]
) -> Users:
    """Return users by the JWT that they send.

    An agent's token is refused. `count_call` counts that call against the agent's limit.
    """

    async def user(context: Context) -> User:
        token = bearer_of(context)
        if token is None:
            raise TokenMissing("a token is needed: authorization: Bearer ...")
        if looks_like_an_agent_token(token):
            count_call(await agents.agent(token))
            raise PermissionDenied("an agent token is valid only for the agent's own methods")
        return await verifier.user(token)

    return user


def by_certificate(admins: Collection[str]) -> Users:
    """Return users by the client certificate of their connection; `admins` are subjects."""

    async def user(context: Context) -> User:
        return user_of_certificate(context.auth_context(), admins)

    return user


def bearer_of(context: Context) -> str | None:
    """Return the token of `authorization: Bearer ...` (RFC 6750); None where there is none.

    Raises Unauthenticated where there are two, because a proxy might have checked the other one,
    and for a token that is too long. gRPC itself refuses calls with too much metadata.
    """
    call = current()
    # gRPC makes the metadata anew each time that it is asked for it.
    metadata = (call is not None and call.metadata) or context.invocation_metadata() or ()
    values = [value for key, value in metadata if key == "authorization"]
    if not values:
        return None
    scheme, _, token = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer":
        raise Unauthenticated("token invalid")
    token = token.strip()
    if len(token) > MAX_TOKEN_BYTES:
        raise Unauthenticated(f"token invalid: it has more than {MAX_TOKEN_BYTES} bytes")
    return token or None


async def _closed(_: Context) -> Caller | None:
    raise PermissionDenied("this method is not served")


async def _public(_: Context) -> Caller | None:
    return None
