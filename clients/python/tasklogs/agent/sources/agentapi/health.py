"""When a task app counts as healthy."""

from __future__ import annotations

from collections.abc import Callable

from tasklogs.agent.sources.agentapi.faults import Fault
from tasklogs.enums import AppHealth


class Health:
    """The rule: UNHEALTHY after 30 s of nothing but refused connections and 5xx.

    A timeout never counts, because AgentAPI blocks while it handles a POST. The first good response
    ends UNHEALTHY. Until the running process has said `stable` or shown a user's message, a task
    app that responds is INITIALIZING: it may show its banner, before its saved state is loaded.
    """

    def __init__(self, unhealthy_after_seconds: float, clock: Callable[[], float]) -> None:
        self._unhealthy_after_seconds = unhealthy_after_seconds
        self._clock = clock
        self._down_since: float | None = None
        self.value = AppHealth.INITIALIZING

    def answered(self, *, ready: bool) -> None:
        """Record a good response. `ready`: whether the process has shown its conversation."""
        self._down_since = None
        self.value = AppHealth.HEALTHY if ready else AppHealth.INITIALIZING

    def failed(self, fault: Fault) -> None:
        """Record a failed attempt."""
        if fault is not Fault.DOWN:
            self._down_since = None
            return
        now = self._clock()
        if self._down_since is None:
            self._down_since = now
        if now - self._down_since >= self._unhealthy_after_seconds:
            self.value = AppHealth.UNHEALTHY
