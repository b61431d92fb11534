"""Agent streams that have not said Hello yet, by task."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

from tasklogs_server.domain.errors import SessionSuperseded

# An agent has one. A second one is there while the first one's connection is found to be broken.
_AT_ONCE = 2


class Greetings:
    """Of one task, so many streams may be about to say Hello; a further one ends the oldest.

    Each may hold a message of any allowed size while it arrives. The newest stream of a task ends
    all others anyway, once it has said Hello.
    """

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        self._at_once = at_once
        self._open: dict[UUID, deque[Greeting]] = defaultdict(deque)

    @contextmanager
    def of(self, task_id: UUID) -> Iterator[Greeting]:
        """Count a stream of a task while the block lasts."""
        greetings, greeting = self._open[task_id], Greeting()
        if len(greetings) >= self._at_once:
            greetings.popleft().supersede()
        greetings.append(greeting)
        try:
            yield greeting
        finally:
            if greeting in greetings:
                greetings.remove(greeting)
            if not greetings and self._open.get(task_id) is greetings:
                del self._open[task_id]


class Greeting:
    """One stream's wait for its Hello."""

    def __init__(self) -> None:
        self._is_superseded = False
        self._timeout: asyncio.Timeout | None = None

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Limit the block. Raises TimeoutError, and SessionSuperseded once there is a later one."""
        try:
            async with asyncio.timeout(seconds) as self._timeout:
                yield
        except TimeoutError:
            if self._is_superseded:
                raise SessionSuperseded from None
            raise

    def supersede(self) -> None:
        """End the wait."""
        self._is_superseded = True
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())
