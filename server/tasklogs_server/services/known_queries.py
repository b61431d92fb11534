"""The queries of requests that were decoded before.

A client that polls a log sends the same request again and again. To find it by its bytes costs a
tenth of decoding and checking it.
"""

from __future__ import annotations

from tasklogs_server.reads.reader import LogQuery

MOST_QUERIES = 1024
MOST_BYTES = 512
"""Longer requests are not kept: any caller can send many of them."""


class KnownQueries:
    """Queries by the bytes of their requests, and by whose tasks their callers may see."""

    def __init__(self) -> None:
        self._queries: dict[tuple[bytes, str | None], LogQuery] = {}
        """The oldest comes first."""

    def __len__(self) -> int:
        return len(self._queries)

    def find(self, encoded: bytes, sees_only: str | None) -> LogQuery | None:
        """Return the query of a request, None if it is not known."""
        return self._queries.get((encoded, sees_only))

    def keep(self, encoded: bytes, query: LogQuery) -> None:
        """Keep a query, unless its request is long or has a page token, which is sent once."""
        if query.page_token or len(encoded) > MOST_BYTES:
            return
        if len(self._queries) >= MOST_QUERIES:
            del self._queries[next(iter(self._queries))]
        self._queries[encoded, query.sees_only] = query
