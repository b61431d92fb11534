"""What a server is and can do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

import grpc

from tasklogs.enums import TaskLogType
from tasklogs.errors import UnsupportedByServer


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """The limits that a server has for all callers. Those on rates are not here."""

    message_bytes: int
    """The largest request."""
    entry_bytes: int
    """The longest content of an entry."""
    page_entries: int
    """The most entries on a page of a log."""
    page_tasks: int
    """The most tasks on a page of a list."""
    upload_bytes: int
    """The most content of a conversation that is uploaded in parts."""
    default_deadline: timedelta
    """The deadline of a call that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """The response of GetServerInfo."""

    version: str
    features: frozenset[str]
    """Names, which docs/api.md lists. What an older server lacks is missing here."""
    entry_types: tuple[TaskLogType, ...]
    """The types of entries that the server stores."""
    limits: ServerLimits


Need: TypeAlias = tuple[str, str]
"""A feature, and the argument that needs it."""


class ServerFeatures:
    """Says whether the server has a feature; asks when a program first needs one.

    A server ignores the fields that it does not know. Without the question, an older server would
    return everything to a caller that asked for a part.
    """

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()

    async def require(
        self, needs: Iterable[Need], ask: Callable[[], Awaitable[ServerInfo]]
    ) -> None:
        """Raise UnsupportedByServer if the server lacks one of the features. `ask` calls it.

        Without needs nothing is asked. What the server has is asked once. What it lacks is asked
        again: the server may be a newer one by then.
        """
        for feature, argument in needs:
            if feature not in self._known:
                await self._ask_for(feature, argument, ask)

    async def _ask_for(
        self, feature: str, argument: str, ask: Callable[[], Awaitable[ServerInfo]]
    ) -> None:
        try:
            info = await ask()
        except UnsupportedByServer:
            raise _unsupported(feature, argument, "is older than 0.1") from None
        self._known = info.features
        if feature not in info.features:
            raise _unsupported(feature, argument, f"(version {info.version}) lacks {feature}")


def _unsupported(feature: str, argument: str, why: str) -> UnsupportedByServer:
    message = f"`{argument}` is not supported: the server {why}"
    return UnsupportedByServer(code=grpc.StatusCode.UNIMPLEMENTED, message=message, feature=feature)
