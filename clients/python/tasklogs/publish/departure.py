"""Whether the agent is to leave, and why."""

from __future__ import annotations

import asyncio

from tasklogs.v1 import task_agents_pb2 as pb

Reason = pb.Goodbye.Reason


class Departure:
    """A request to leave, set by a signal."""

    def __init__(self) -> None:
        self._wanted = asyncio.Event()
        self._reason = pb.Goodbye.REASON_STOPPING

    @property
    def is_wanted(self) -> bool:
        """Whether the agent is to leave."""
        return self._wanted.is_set()

    @property
    def reason(self) -> Reason.ValueType:
        """The reason for `Goodbye`."""
        return self._reason

    @property
    def reason_name(self) -> str:
        """`PAUSING` or `STOPPING`, for the log."""
        return Reason.Name(self._reason).removeprefix("REASON_")

    def want(self, reason: Reason.ValueType) -> None:
        """Ask the agent to leave."""
        self._reason = reason
        self._wanted.set()

    async def wanted(self) -> None:
        """Wait until the agent is to leave."""
        await self._wanted.wait()
