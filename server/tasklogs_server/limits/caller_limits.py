"""What one caller may take at most, so that one of them cannot have it all."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from tasklogs_server.domain.caller import LOCAL, Agent, Caller
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.limits.agent_connects import AgentConnects
from tasklogs_server.limits.token_buckets import TokenBuckets, retry_after

_Key = str | UUID

_STRANGERS: _Key = ""  # no subject is empty


@dataclass(frozen=True, slots=True)
class Allowance:
    """Of each caller: calls a second on average, calls at once, and streams at the same time."""

    calls_per_second: float = 200.0
    calls_at_once: int = 400
    streams: int = 500
    strangers_streams: int = 5000
    """Of all together who need not say who they are."""
    connects_per_second: float = 1.0
    """Streams that one agent opens, on average."""
    connects_at_once: int = 20


class CallerLimits:
    """Token buckets, and streams that are open, by caller. Whoever is `local` is not one caller.

    An agent is a caller of its own, by its task.
    """

    def __init__(self, allowance: Allowance, *, clock: Callable[[], float]) -> None:
        self._allowance = allowance
        self._calls: TokenBuckets[_Key] = TokenBuckets(
            allowance.calls_per_second, allowance.calls_at_once, clock=clock
        )
        self.connects = AgentConnects(
            allowance.connects_per_second, allowance.connects_at_once, clock=clock
        )
        self._streams: dict[_Key, int] = defaultdict(int)

    def take_call(self, caller: Caller) -> None:
        """Count a call. Raises LimitExceeded."""
        if caller is LOCAL:
            return
        wait_seconds = self._calls.take(_key(caller))
        if wait_seconds:
            what = f"more than {self._allowance.calls_per_second:g} calls a second"
            later = retry_after(wait_seconds)
            raise LimitExceeded(Limit.CALLS_PER_SECOND, "caller", what, later)

    def take_stream(self, caller: Caller) -> None:
        """Count a stream until the task that runs this ends. Raises LimitExceeded."""
        if caller is not LOCAL:
            self._take_stream(
                _key(caller), Limit.STREAMS_PER_CALLER, self._allowance.streams, "caller"
            )

    def take_strangers_stream(self) -> None:
        """The same for a caller who is not known."""
        self._take_stream(
            _STRANGERS, Limit.HEALTH_WATCHES, self._allowance.strangers_streams, "server"
        )

    def _take_stream(self, key: _Key, limit: Limit, at_most: int, whose: str) -> None:
        if self._streams[key] >= at_most:
            # Those of a connection that broke are noticed within seconds.
            what = f"more than {at_most} streams at the same time"
            raise LimitExceeded(limit, whose, what, retry_after(2.0))
        self._streams[key] += 1
        call = asyncio.current_task()
        assert call is not None
        call.add_done_callback(lambda _: self._give_back(key))

    def _give_back(self, key: _Key) -> None:
        self._streams[key] -= 1
        if not self._streams[key]:
            del self._streams[key]


def _key(caller: Caller) -> _Key:
    return caller.task_id if isinstance(caller, Agent) else caller.subject
