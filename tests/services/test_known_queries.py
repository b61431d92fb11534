"""Which queries are kept, and for whom."""

from __future__ import annotations

import uuid

from tasklogs_server.domain.names import TaskId
from tasklogs_server.domain.read_plan import Source
from tasklogs_server.reads.reader import LogQuery
from tasklogs_server.services.known_queries import MOST_BYTES, MOST_QUERIES, KnownQueries


def query(sees_only: str | None = None, page_token: str = "") -> LogQuery:
    return LogQuery(
        ref=TaskId(uuid.uuid4(), sees_only),
        sees_only=sees_only,
        source=Source.DEFAULT,
        tail=None,
        page_rows=10,
        page_bytes=1000,
        page_token=page_token,
        epoch=None,
        max_staleness=None,
        fingerprint=lambda: b"",
    )


def test_a_query_is_found_for_callers_who_see_the_same_tasks() -> None:
    known = KnownQueries()
    of_alice, of_admins = query("alice"), query(None)
    known.keep(b"request", of_alice)
    assert known.find(b"request", None) is None
    known.keep(b"request", of_admins)

    assert known.find(b"request", "alice") is of_alice
    assert known.find(b"request", None) is of_admins
    assert known.find(b"request", "bob") is None
    assert known.find(b"another", "alice") is None


def test_the_oldest_query_makes_room() -> None:
    known = KnownQueries()
    for number in range(MOST_QUERIES + 5):
        known.keep(b"%d" % number, query())

    assert len(known) == MOST_QUERIES
    assert known.find(b"4", None) is None
    assert known.find(b"5", None) is not None


def test_neither_long_requests_nor_page_tokens_are_kept() -> None:
    known = KnownQueries()
    known.keep(b"x" * MOST_BYTES, query())
    known.keep(b"x" * (MOST_BYTES + 1), query())
    known.keep(b"later page", query(page_token="token"))

    assert len(known) == 1
