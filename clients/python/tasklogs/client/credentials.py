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
        """What to send; what the provider raises is the caller's to see.

        White space at the token's ends is left off: files end with a newline. Raises ValueError
        where no header could carry it.
        """
        if self._token is None:
            return ()
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        token = token.strip()
        if not token.isascii() or not token.isprintable() or " " in token:
            # gRPC would raise an error of its own that names its operations, and log the rest.
            raise ValueError("no token: it must be one word of printable ASCII, without `Bearer`")
        return (("authorization", f"Bearer {token}"),)
