"""Whether Postgres is there: while it is away, nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.store.errors import RETRY_AFTER


class Presence:
    """The circuit breaker of a store. Its watch alone decides; all others ask, or say `suspect`.

    A caller's own failure is no proof: its connection may have been killed, or its statement slow.
    """

    def __init__(self) -> None:
        self.suspected = asyncio.Event()
        """Somebody's connection failed: the watch looks now, not when its time comes."""
        self._is_away = False
        self._losses: list[Callable[[], None]] = []

    @property
    def is_away(self) -> bool:
        """Whether calls are refused."""
        return self._is_away

    def check(self) -> None:
        """Raise StoreUnavailable while Postgres is away."""
        if self._is_away:
            raise StoreUnavailable(RETRY_AFTER)

    def suspect(self) -> None:
        """Say that something went wrong that could mean that Postgres is away."""
        self.suspected.set()

    def on_loss(self, cut: Callable[[], None]) -> None:
        """Call `cut` whenever Postgres goes away: whoever waits for it must not wait longer."""
        self._losses.append(cut)

    def lost(self) -> None:
        """Refuse calls from now on, and let those under way fail."""
        if self._is_away:
            return
        self._is_away = True
        for cut in self._losses:
            cut()

    def found(self) -> None:
        """Let calls through again."""
        self._is_away = False
