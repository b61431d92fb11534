"""The agent's own token, and how a rotation reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tasklogs.agent.settings import Settings
from tasklogs.agent.stream.departure import Departure


class OwnToken:
    """A token, and where another will lie once it is rotated.

    `read` returns what lies there now, None where that cannot be read; without it the token is the
    only one there will be.
    """

    def __init__(self, token: str, read: Callable[[], str | None] | None = None) -> None:
        self.value = token
        self._read = read

    @property
    def may_change(self) -> bool:
        """Whether it is worth waiting for another one."""
        return self._read is not None

    async def changed(self, settings: Settings, departure: Departure) -> bool:
        """Take another token as soon as there is one. False where none came, or the agent leaves.

        Whoever rotates it needs a moment to write it down; a secret of Kubernetes, up to two
        minutes to arrive.
        """
        if self._read is None:
            return False
        try:
            async with asyncio.timeout(settings.rotation_patience_seconds):
                while not departure.is_wanted:
                    found = self._read()
                    if found and found != self.value:
                        self.value = found
                        return True
                    try:
                        async with asyncio.timeout(settings.rotation_look_seconds):
                            await departure.wanted()
                    except TimeoutError:
                        pass
        except TimeoutError:
            pass
        return False
