"""The agent's token, which may be rotated while the agent runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from enum import Enum, auto

from tasklogs.publish.departure import Departure
from tasklogs.publish.settings import StreamSettings

# The waits before two attempts with the same token differ by up to this factor of the setting.
_SPREAD = (0.75, 1.25)


class Wait(Enum):
    """How a wait for another token ended."""

    CHANGED = auto()
    TRY_AGAIN = auto()
    """No other token came. It is time to try the refused one again."""
    GIVE_UP = auto()
    """No other token came in time, none can come, or the agent leaves."""


class OwnToken:
    """A token, and a way to read the one that replaces it.

    `read` returns the token that is in the file now, or None if it cannot be read. Without `read`
    the token never changes.
    """

    def __init__(
        self,
        token: str,
        read: Callable[[], str | None] | None = None,
        *,
        settings: StreamSettings,
        rng: random.Random,
    ) -> None:
        self.value = token
        self._read = read
        self._settings = settings
        self._rng = rng
        self._left_seconds = settings.rotation_timeout_seconds

    @property
    def may_change(self) -> bool:
        """Whether another token may come."""
        return self._read is not None

    def accepted(self) -> None:
        """Record that the server accepted the token: a later refusal has the whole time again."""
        self._left_seconds = self._settings.rotation_timeout_seconds

    def take_another(self) -> bool:
        """Use another token if there is one now. Returns whether there was."""
        found = self._read() if self._read is not None else None
        if not found or found == self.value:
            return False
        self.value = found
        self.accepted()
        return True

    async def changed(self, departure: Departure) -> Wait:
        """Wait for another token and use it, until it is time to try the refused one again.

        After a rotation the file is written within moments; a Kubernetes secret can take two
        minutes to arrive. The refusal itself may also pass: a server that was restored from a
        backup may be updated.
        """
        if self._read is None:
            return Wait.GIVE_UP
        longest = self._settings.rotation_retry_seconds * self._rng.uniform(*_SPREAD)
        seconds = min(longest, self._left_seconds)
        self._left_seconds -= seconds
        try:
            async with asyncio.timeout(seconds):
                while not departure.is_wanted:
                    if self.take_another():
                        return Wait.CHANGED
                    try:
                        async with asyncio.timeout(self._settings.rotation_interval_seconds):
                            await departure.wanted()
                    except TimeoutError:
                        pass
        except TimeoutError:
            return Wait.TRY_AGAIN if self._left_seconds > 0 else Wait.GIVE_UP
        return Wait.GIVE_UP
