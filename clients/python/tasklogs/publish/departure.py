"""Whether the agent is to leave, and why."""

from __future__ import annotations

import asyncio

from tasklogs.v1 import task_agents_pb2 as pb

Reason = pb.Goodbye.Reason


class LeftWithoutGoodbye(Exception):
    """The server did not confirm the goodbye. `str()` says why."""


class Departure:
    """A request to leave: by a signal, or because there is nothing left to send."""

    def __init__(self) -> None:
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()
        self._reason = pb.Goodbye.REASON_STOPPING

    @property
    def is_wanted(self) -> bool:
        """Whether the agent is to leave."""
        return self._wanted.is_set()

    @property
    def is_urgent(self) -> bool:
        """Whether the agent is to leave even if no server answers."""
        return self._urgent.is_set()

    @property
    def reason(self) -> Reason.ValueType:
        """The reason for `Goodbye`."""
        return self._reason

    @property
    def reason_name(self) -> str:
        """`PAUSING` or `STOPPING`, for the log."""
        return Reason.Name(self._reason).removeprefix("REASON_")

    def want(self, reason: Reason.ValueType, *, is_urgent: bool = True) -> None:
        """Ask the agent to leave. If it is not urgent, it may wait for a server to come back."""
        self._reason = reason
        self._wanted.set()
        if is_urgent:
            self._urgent.set()

    async def wanted(self) -> None:
        """Wait until the agent is to leave."""
        await self._wanted.wait()

    async def changed(self) -> None:
        """Wait until the agent is to leave or, if it is already, until that is urgent."""
        await (self._urgent if self.is_wanted else self._wanted).wait()
