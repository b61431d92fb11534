"""The sources of keys: a file or a URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import httpx

_FETCH_SECONDS = 5.0
_MAX_BYTES = 1024 * 1024


class Unreadable(Exception):
    """The document could not be read. `str()` says why, in one line."""


class Source(Protocol):
    """A document that may change."""

    async def read(self) -> bytes | None:
        """Return the document, None if it is unchanged. Raises Unreadable."""


class File:
    """A file. It is read again after it was replaced or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return str(self._path)

    async def read(self) -> bytes | None:
        """Return its content, None if it is unchanged. Raises Unreadable."""
        try:
            # A small local file: a thread would cost more than the read.
            with open(self._path, "rb") as file:  # noqa: ASYNC230, PTH123
                stat = os.fstat(file.fileno())
                now = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
                if now == self._read_at:
                    return None
                document = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise Unreadable(error.strerror or type(error).__name__) from None
        if len(document) > _MAX_BYTES:
            raise Unreadable("it is too large")
        self._read_at = now
        return document


class Url:
    """A URL: https, or http on loopback."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._shown = _without_secrets(url)
        # A proxy has another loopback.
        self._through_proxy = url.startswith("https:")

    def __str__(self) -> str:
        return self._shown

    async def read(self) -> bytes | None:
        """Fetch it. Never returns None. Raises Unreadable."""
        try:
            async with (
                httpx.AsyncClient(
                    timeout=_FETCH_SECONDS,
                    trust_env=self._through_proxy,
                    # A compressed body may expand to any size.
                    headers={"Accept-Encoding": "identity"},
                ) as client,
                client.stream("GET", self._url) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise Unreadable(f"HTTP {response.status_code}")
                coding = response.headers.get("content-encoding", "identity")
                if coding.strip().lower() not in ("", "identity"):
                    raise Unreadable("it is compressed, and the request asked for no compression")
                return await _body(response)
        except httpx.TimeoutException:
            raise Unreadable(f"no answer within {_FETCH_SECONDS:g} s") from None
        # InvalidURL, and the errors of strange host names, are not HTTPErrors.
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise Unreadable(type(error).__name__) from None


def _without_secrets(url: str) -> str:
    """Return the URL without user, password and query, for the log."""
    try:
        parsed = urlsplit(url)
    except ValueError:
        return "a URL that cannot be parsed"
    return urlunsplit((parsed.scheme, parsed.netloc.rpartition("@")[2], parsed.path, "", ""))


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > _MAX_BYTES:
            raise Unreadable("it is too large")
    return bytes(body)
