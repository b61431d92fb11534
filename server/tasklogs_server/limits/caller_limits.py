"""Limits of one caller, so that no caller can use up what the server can do for all."""

from __future__ import annotations

import asyncio
import hmac
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from tasklogs_server.domain.caller import LOCAL, Agent, Caller
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.limits.token_buckets import TokenBuckets, retry_after

_Key = str | UUID
_StreamKey = tuple[Limit, _Key]

_PUBLIC: _Key = ""  # no subject is empty

# Four megabytes arrive in the time of some hundred calls.
_BYTES_OF_A_CALL = 16 * 1024

# When more refused agents than this are remembered, all are forgotten. Each of them then costs one
# look at the store to be known again.
_REFUSED = 10_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one caller may do."""

    calls_per_second: float = 200.0
    """On average."""
    calls_at_once: int = 400
    """After a pause."""
    streams: int = 500
    """Open at the same time."""
    public_streams: int = 5000
    """Open at the same time, of all unauthenticated callers together."""
    connects_per_second: float = 1.0
    """Streams that one agent opens, on average."""
    connects_at_once: int = 20
    """Streams that one agent opens after a pause."""
    reflection_streams: int = 8
    """Open at the same time."""
    all_reflection_streams: int = 32
    """Open at the same time, of all callers together. Each may hold a message that arrives."""


class CallerLimits:
    """Token buckets and open streams, by caller. An agent is a caller of its own, by its task.

    Callers named `local` cannot be told apart, and are not limited.
    """

    def __init__(self, allowance: Allowance, *, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._allowance = allowance
        self._calls: TokenBuckets[_Key] = TokenBuckets(
            allowance.calls_per_second, allowance.calls_at_once, clock=clock
        )
        self.connects = AgentConnects(
            allowance.connects_per_second, allowance.connects_at_once, clock=clock
        )
        self._streams: dict[_StreamKey, int] = defaultdict(int)

    def count_call(self, caller: Caller) -> None:
        """Count a call. Raises LimitExceeded."""
        if caller is LOCAL:
            return
        wait_seconds = self._calls.spend(_key(caller))
        if wait_seconds:
            what = f"more than {self._allowance.calls_per_second:g} calls a second"
            later = retry_after(wait_seconds)
            raise LimitExceeded(Limit.CALLS_PER_SECOND, "caller", what, later)

    def count_bytes(self, caller: Caller, received: int) -> None:
        """Count a message that was refused, in calls by its size. It may have come in already."""
        if caller is not LOCAL:
            self._calls.charge(_key(caller), received / _BYTES_OF_A_CALL)

    def count_stream(self, caller: Caller) -> None:
        """Count a stream, until the task that runs this ends. Raises LimitExceeded."""
        if caller is not LOCAL:
            self._count_stream(
                _key(caller), Limit.STREAMS_PER_CALLER, self._allowance.streams, "caller"
            )

    def count_public_stream(self) -> None:
        """The same for an unauthenticated caller."""
        self._count_stream(_PUBLIC, Limit.HEALTH_WATCHES, self._allowance.public_streams, "server")

    def count_reflection(self, caller: Caller | None) -> None:
        """The same for a stream of reflection, in addition: most callers need one for a moment."""
        limit, allowance = Limit.REFLECTION_STREAMS, self._allowance
        if caller is not None and caller is not LOCAL:
            self._count_stream(_key(caller), limit, allowance.reflection_streams, "caller")
        self._count_stream(_PUBLIC, limit, allowance.all_reflection_streams, "server")

    def _count_stream(self, key: _Key, limit: Limit, at_most: int, whose: str) -> None:
        counted = limit, key
        if self._streams.get(counted, 0) >= at_most:
            # The streams of a broken connection are noticed within seconds.
            what = f"more than {at_most} streams at the same time"
            raise LimitExceeded(limit, whose, what, retry_after(2.0))
        self._streams[counted] += 1
        call = asyncio.current_task()
        assert call is not None
        call.add_done_callback(lambda _: self._stream_ended(counted))

    def _stream_ended(self, counted: _StreamKey) -> None:
        self._streams[counted] -= 1
        if not self._streams[counted]:
            del self._streams[counted]


class AgentConnects:
    """How often an agent may open its stream: one token bucket per task, for all its tokens.

    Each new stream supersedes the session before it and makes the store commit. That costs several
    times what a refusal does. A correct agent connects when it starts, and after a failure.
    """

    def __init__(self, per_second: float, at_once: int, *, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._buckets: TokenBuckets[UUID] = TokenBuckets(per_second, at_once, clock=clock)
        self._refused: dict[UUID, bytes] = {}
        """By task, the hash of the token that was valid when its agent was refused."""

    def count(self, agent: Agent) -> None:
        """Count a stream of an agent whose token is valid. Raises LimitExceeded."""
        wait_seconds = self._buckets.spend(agent.task_id)
        if not wait_seconds:
            self._refused.pop(agent.task_id, None)
            return
        if len(self._refused) >= _REFUSED:
            self._refused.clear()
        self._refused[agent.task_id] = agent.token_hash
        raise self._error(wait_seconds)

    def refusal(self, claimed: Agent) -> LimitExceeded | None:
        """Return what refuses an agent before its token is looked up in the store, if anything.

        It refuses only a token that was valid at an earlier refusal: a caller without a valid token
        must not learn that a task's agent connects too often, nor keep it from connecting.
        """
        refused = self._refused.get(claimed.task_id)
        if refused is None or not hmac.compare_digest(refused, claimed.token_hash):
            return None
        wait_seconds = self._buckets.wait_seconds(claimed.task_id)
        return self._error(wait_seconds) if wait_seconds else None

    def _error(self, wait_seconds: float) -> LimitExceeded:
        what = f"its agent connects at more than {self._per_second:g} a second"
        later = retry_after(wait_seconds)  # spread: several agents may share one token
        return LimitExceeded(Limit.AGENT_CONNECTS_PER_SECOND, "task", what, later)


def _key(caller: Caller) -> _Key:
    return caller.task_id if isinstance(caller, Agent) else caller.subject
