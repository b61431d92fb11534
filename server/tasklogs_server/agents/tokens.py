"""Agent tokens: random, bound to one task, stored as a hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from uuid import UUID

from tasklogs_server.domain.errors import Unauthenticated
from tasklogs_server.store.tasks import TaskStore

# Told from users' tokens at a glance, and found by scanners of leaked secrets.
_PREFIX = "tla_"


def new_token(task_id: UUID) -> tuple[str, bytes]:
    """Return a new token of the task, and the hash that is stored of it."""
    token = f"{_PREFIX}{task_id.hex}_{secrets.token_urlsafe(32)}"
    return token, _hash(token)


async def authenticate(tasks: TaskStore, token: str) -> UUID:
    """Return the task that `token` opens. Raises Unauthenticated, whatever is wrong with it."""
    task_id = _task_of(token)
    stored = None if task_id is None else await tasks.token_hash(task_id)
    # Compared even where there is no such task: the time must not tell.
    if not hmac.compare_digest(_hash(token), stored or bytes(32)) or task_id is None:
        raise Unauthenticated("the agent token is not valid")
    return task_id


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _task_of(token: str) -> UUID | None:
    task, _, secret = token.removeprefix(_PREFIX).partition("_")
    if not token.startswith(_PREFIX) or len(task) != 32 or not secret:
        return None
    try:
        return UUID(hex=task)
    except ValueError:
        return None
