"""What is sent with each call: the caller's bearer token, and other metadata."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A token, or a function that returns one.

It is called before each call, and once more if the server refused its token.
"""
Metadata: TypeAlias = Mapping[str, str | bytes]
"""Metadata (headers) of a call: one value per key. Bytes if the key ends with `-bin`, else text."""

_KEY = re.compile(r"[0-9a-z_.-]+")


class Credentials:
    """The metadata of a call."""

    def __init__(self, token: Token | None, metadata: Metadata | None = None) -> None:
        self._token = token
        self._metadata = _checked(metadata or {})

    def adding(self, metadata: Metadata | None) -> Credentials:
        """Return these credentials with more metadata, which replaces that of the same key."""
        if not metadata:
            return self
        return Credentials(self._token, {**self._metadata, **_checked(metadata)})

    @property
    def can_refresh(self) -> bool:
        """Whether another call of the function may return another token."""
        return callable(self._token) and _AUTHORIZATION not in self._metadata

    async def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return the metadata to send. Passes on what the function raises.

        White space around the token is removed: files end with a newline. An empty token counts as
        none. Raises ValueError if a header cannot hold the token.
        """
        if self._token is None or _AUTHORIZATION in self._metadata:
            return tuple(self._metadata.items())
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        token = token.strip()
        if not token:
            return tuple(self._metadata.items())
        if not token.isascii() or not token.isprintable() or " " in token:
            # gRPC would raise a misleading error of its own, and log the rest.
            raise ValueError("not a token: it must be one printable ASCII word, without `Bearer`")
        return (*self._metadata.items(), (_AUTHORIZATION, f"Bearer {token}"))


_AUTHORIZATION = "authorization"


def _checked(metadata: Metadata) -> dict[str, str | bytes]:
    """Return it with lower-case keys. Raises ValueError, without the value, as gRPC would not."""
    checked = {}
    for given, value in metadata.items():
        key = given.lower()
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a key of metadata: {given!r}")
        if key.endswith("-bin") != isinstance(value, bytes):
            raise ValueError(f"metadata {key!r}: bytes belong to keys that end with -bin")
        if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            raise ValueError(f"metadata {key!r}: the value must be printable ASCII")
        checked[key] = value
    return checked
