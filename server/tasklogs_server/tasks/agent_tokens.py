"""Agent tokens: random, bound to one task, stored as a hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from uuid import UUID

from tasklogs_server.domain.caller import Agent
from tasklogs_server.domain.errors import Unauthenticated
from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.store.tasks import TaskStore

# Distinguishes agent tokens from users' tokens, and lets scanners find leaked ones.
_PREFIX = "tla_"
_NOT_VALID = "the agent token is not valid"


def new_token(task_id: UUID) -> tuple[str, bytes]:
    """Return a new token of the task, and the hash that is stored of it."""
    token = f"{_PREFIX}{task_id.hex}_{secrets.token_urlsafe(32)}"
    return token, _hash(token)


def looks_like_an_agent_token(token: str) -> bool:
    """Whether `token` has the form of an agent token."""
    return token.startswith(_PREFIX)


def claimed_by(token: str) -> Agent | None:
    """Return the agent that `token` claims to belong to. None: the token names no task.

    Only `AgentTokens.agent` checks the claim.
    """
    task_id = _task_of(token)
    return None if task_id is None else Agent(task_id, _hash(token))


class AgentTokens:
    """Checks agent tokens against the store. Methods raise StoreUnavailable."""

    def __init__(self, tasks: TaskStore, handshakes: HandshakeQueue) -> None:
        self._tasks = tasks
        self._handshakes = handshakes

    async def agent(self, token: str) -> Agent:
        """Return the agent of a valid `token`. Raises Unauthenticated for any other.

        Raises LimitExceeded if too many agents connect at once.
        """
        claimed = claimed_by(token)
        if claimed is None:
            raise Unauthenticated(_NOT_VALID)
        # Without turns, a reader would wait for the store behind thousands of agents.
        async with self._handshakes.turn():
            stored = await self._tasks.token_hash(claimed.task_id)
        # Compare even if there is no such task: the duration must not reveal whether there is one.
        if not hmac.compare_digest(claimed.token_hash, stored or bytes(32)):
            raise Unauthenticated(_NOT_VALID)
        return claimed

    async def still_opens(self, agent: Agent) -> None:
        """Raise Unauthenticated if the token was rotated, or the task deleted, since its check."""
        stored = await self._tasks.token_hash(agent.task_id)
        if not hmac.compare_digest(agent.token_hash, stored or bytes(32)):
            raise Unauthenticated("the agent token was rotated")


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _task_of(token: str) -> UUID | None:
    task, _, secret = token.removeprefix(_PREFIX).partition("_")
    if not looks_like_an_agent_token(token) or len(task) != 32 or not secret:
        return None
    try:
        return UUID(hex=task)
    except ValueError:
        return None
