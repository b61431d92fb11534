"""The agent's token, which may be rotated while the agent runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tasklogs.agent.settings import Settings
from tasklogs.agent.stream.departure import Departure


class OwnToken:
    """A token, and a way to read the one that replaces it.

    `read` returns the token that is in the file now, or None if it cannot be read. Without `read`
    the token never changes.
    """

    def __init__(self, token: str, read: Callable[[], str | None] | None = None) -> None:
        self.value = token
        self._read = read

    @property
    def may_change(self) -> bool:
        """Whether another token may come."""
        return self._read is not None

    async def changed(self, settings: Settings, departure: Departure) -> bool:
        """Wait for another token and use it. Returns False if none came, or the agent leaves.

        After a rotation the file is written within moments; a Kubernetes secret can take two
        minutes to arrive.
        """
        if self._read is None:
            return False
        try:
            async with asyncio.timeout(settings.rotation_timeout_seconds):
                while not departure.is_wanted:
                    found = self._read()
                    if found and found != self.value:
                        self.value = found
                        return True
                    try:
                        async with asyncio.timeout(settings.rotation_interval_seconds):
                            await departure.wanted()
                    except TimeoutError:
                        pass
        except TimeoutError:
            pass
        return False
