"""Who calls: a bearer token that goes with each call."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A token, or who is asked for one before each call, and once more where a server refused it."""


class Credentials:
    """The metadata that a call carries."""

    def __init__(self, token: Token | None) -> None:
        self._token = token

    @property
    def can_refresh(self) -> bool:
        """Whether asking again may bring another token."""
        return callable(self._token)

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        """What to send; what the provider raises is the caller's to see."""
        if self._token is None:
            return ()
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        return (("authorization", f"Bearer {token}"),)
