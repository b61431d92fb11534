"""The circuit breaker of the store: while Postgres is away, calls fail at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.store.errors import RETRY_AFTER


class CircuitBreaker:
    """Open while Postgres is away. Only the store's monitor opens and closes it.

    A failed call does not open it: perhaps only its connection was killed, or its statement was
    slow. The call makes the monitor check at once.
    """

    def __init__(self) -> None:
        self.suspected = asyncio.Event()
        """Set after a connection failed. The monitor then checks at once."""
        self._is_away = False
        self._losses: list[Callable[[], None]] = []
        self._returns: list[Callable[[], None]] = []

    @property
    def is_away(self) -> bool:
        """Whether calls are refused."""
        return self._is_away

    def check(self) -> None:
        """Raise StoreUnavailable while Postgres is away."""
        if self._is_away:
            raise StoreUnavailable(RETRY_AFTER)

    def suspect(self) -> None:
        """Report a failure that may mean that Postgres is away."""
        self.suspected.set()

    def on_loss(self, cut: Callable[[], None]) -> None:
        """Call `cut` whenever Postgres goes away, to end all waits for it."""
        self._losses.append(cut)

    def on_return(self, resume: Callable[[], None]) -> None:
        """Call `resume` whenever Postgres is back."""
        self._returns.append(resume)

    def lost(self) -> None:
        """Refuse calls from now on, and end those in progress."""
        if self._is_away:
            return
        self._is_away = True
        for cut in self._losses:
            cut()

    def found(self) -> None:
        """Allow calls again."""
        if not self._is_away:
            return
        self._is_away = False
        for resume in self._returns:
            resume()
