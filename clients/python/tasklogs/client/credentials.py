"""The caller's bearer token, which is sent with each call."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A token, or a function that returns one.

It is called before each call, and once more if the server refused its token.
"""


class Credentials:
    """The metadata of a call."""

    def __init__(self, token: Token | None) -> None:
        self._token = token

    @property
    def can_refresh(self) -> bool:
        """Whether another call of the function may return another token."""
        return callable(self._token)

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata to send. Passes on what the function raises.

        White space around the token is removed: files end with a newline. Raises ValueError if a
        header cannot hold the token.
        """
        if self._token is None:
            return ()
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        token = token.strip()
        if not token.isascii() or not token.isprintable() or " " in token:
            # gRPC would raise a misleading error of its own, and log the rest.
            raise ValueError("not a token: it must be one printable ASCII word, without `Bearer`")
        return (("authorization", f"Bearer {token}"),)
