"""From what a call carries to the user who makes it, for each mode of authentication."""

from __future__ import annotations

from collections.abc import Callable, Collection

from tasklogs_server.auth.client_certificates import user_of_certificate
from tasklogs_server.auth.verifier import TokenVerifier
from tasklogs_server.domain.caller import LOCAL, Agent, User
from tasklogs_server.domain.errors import PermissionDenied, Unauthenticated
from tasklogs_server.middleware.authentication import Context, Users, bearer_of
from tasklogs_server.tasks.agent_tokens import AgentTokens, looks_like_an_agent_token


async def local(_: Context) -> User:
    """Without authentication everyone is `local`, who may all."""
    return LOCAL


def by_token(verifier: TokenVerifier, agents: AgentTokens, count: Callable[[Agent], None]) -> Users:
    """Return users who bring a JWT. `count` takes a call of an agent that is refused here."""

    async def user(context: Context) -> User:
        token = bearer_of(context)
        if token is None:
            raise Unauthenticated("a token is needed: authorization: Bearer ...")
        if looks_like_an_agent_token(token):
            count(await agents.agent(token))
            raise PermissionDenied("an agent's token opens the agent's calls alone")
        return await verifier.user(token)

    return user


def by_certificate(admins: Collection[str]) -> Users:
    """Return users whose connection was opened with a certificate."""

    async def user(context: Context) -> User:
        return user_of_certificate(context.auth_context(), admins)

    return user
