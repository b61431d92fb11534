"""A call as the handlers see it before its request: the metadata and the peer's identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import cast
from uuid import UUID

from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.middleware.handlers import Context
from tasklogs_server.store.tasks import TaskStore
from tasklogs_server.tasks.agent_tokens import AgentTokens

_PATIENCE = timedelta(seconds=5)
_BETWEEN = b"\n"  # HTTP/2 does not allow it in values


class Call:
    """What a fuzzed caller sends: each line of `data` is the value of an authorization header."""

    def __init__(self, data: bytes) -> None:
        self._values = [_as_grpc_decodes(value) for value in data.split(_BETWEEN)]

    @property
    def values(self) -> Sequence[str]:
        return self._values

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return [("authorization", value) for value in self._values]

    def as_context(self) -> Context:
        return cast("Context", self)


class Hashes:
    """The only query that the check of agent tokens makes to the store."""

    def __init__(self, hashes: Mapping[UUID, bytes]) -> None:
        self._hashes = hashes

    async def token_hash(self, task_id: UUID) -> bytes | None:
        return self._hashes.get(task_id)


def agent_tokens(hashes: Mapping[UUID, bytes]) -> AgentTokens:
    """Return the real check of agent tokens over these hashes."""
    return AgentTokens(cast("TaskStore", Hashes(hashes)), HandshakeQueue(1, _PATIENCE))


def _as_grpc_decodes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
