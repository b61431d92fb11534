"""How often one agent may open its stream.

Each time the session before is superseded and the store commits, which takes several times what a
refusal does. An honest agent connects when it starts, and after something broke.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from uuid import UUID

from tasklogs_server.domain.caller import Agent
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.limits.token_buckets import TokenBuckets, retry_after

# Beyond so many refused agents all are forgotten: each costs one look at the store to know again.
_REFUSED = 10_000


class AgentConnects:
    """A token bucket for each task, whichever token its agent brings."""

    def __init__(self, per_second: float, at_once: int, *, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._buckets: TokenBuckets[UUID] = TokenBuckets(per_second, at_once, clock=clock)
        self._refused: dict[UUID, bytes] = {}
        """The tokens that were good when their agents were refused, by task, hashed."""

    def take(self, agent: Agent) -> None:
        """Count a stream that an agent opens whose token is good. Raises LimitExceeded."""
        wait_seconds = self._buckets.take(agent.task_id)
        if not wait_seconds:
            self._refused.pop(agent.task_id, None)
            return
        if len(self._refused) >= _REFUSED:
            self._refused.clear()
        self._refused[agent.task_id] = agent.token_hash
        raise self._error(wait_seconds)

    def refusal(self, claimed: Agent) -> LimitExceeded | None:
        """Return what an agent is refused with whose token need not be looked up for that.

        Only one that was good when it was refused before: a stranger must neither learn that a
        task's agent connects too often, nor keep it from connecting.
        """
        refused = self._refused.get(claimed.task_id)
        if refused is None or not hmac.compare_digest(refused, claimed.token_hash):
            return None
        wait_seconds = self._buckets.wait_seconds(claimed.task_id)
        return self._error(wait_seconds) if wait_seconds else None

    def _error(self, wait_seconds: float) -> LimitExceeded:
        what = f"its agent connects at more than {self._per_second:g} a second"
        later = retry_after(wait_seconds)  # spread: several agents may have one token
        return LimitExceeded(Limit.AGENT_CONNECTS_PER_SECOND, "task", what, later)
