"""Reads of some types only, compared with reads of all types that are filtered afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2
from tasklogs_server.domain.names import TaskId
from tasklogs_server.reads.follow_events import LogEvent, TailSent, event_of_types
from tasklogs_server.reads.tail_fold import TailFold
from tasklogs_server.store import Store
from tasklogs_server.store.log_changes import EntriesChanged
from tasklogs_server.store.log_reads import LogPage, PageQuery
from tasklogs_server.store.records import EpochOpened, TailWithdrawn
from tasklogs_server.wire.entries import split_entries
from tests.reads.typed_history import FILTERS, OPERATIONS, Operation, written
from tests.reads.written_log import WrittenLog
from tests.store.logs import Connection
from tests.support.fixtures.postgres import MakeDatabase

INPUT, OUTPUT = EntryType.INPUT, EntryType.OUTPUT
HISTORIES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TAILS = (None, 0, 1, 2, 5, 2**31 - 1)
PAGES = ((1, 1_000_000), (2, 1_000_000), (1000, 1), (1000, 60), (1000, 1_000_000))
"""Rows and bytes of a page."""


@pytest.fixture(scope="module")
def database(make_database: MakeDatabase) -> Iterator[str]:
    """One database for all tests, because each test writes a task of its own."""
    with make_database() as dsn:
        yield dsn


async def pages(log: WrittenLog, query: PageQuery) -> list[LogPage]:
    """Read page after page, as page tokens do."""
    read = [await log.store.reads.page(TaskId(log.task_id), query)]
    while (start := read[-1].entries.next_ordinal) < read[-1].end:
        later = replace(query, epoch=read[0].epoch, tail=None, start=start, end=read[0].end)
        read.append(await log.store.reads.page(TaskId(log.task_id), later))
    return read


def entries_of(read: Sequence[LogPage]) -> list[types_pb2.TaskLogEntry]:
    return [
        one for page in read for one in pb.GetTaskLogsResponse.FromString(page.entries.encoded).logs
    ]


def state_of(page: LogPage) -> tuple[object, ...]:
    return page.revision, page.state.epoch, page.epoch, page.first_id, page.snapshot_at, page.end


@HISTORIES
@given(operations=OPERATIONS)
async def test_pages_of_some_types_are_the_pages_of_all_types_filtered(
    store: Store, operations: list[Operation]
) -> None:
    log = (await written(await WrittenLog.open(store), operations)).log
    current = (await pages(log, PageQuery()))[0].state.epoch
    for epoch in (None, *range(max(1, current - 1), current + 2)):
        read = await pages(log, PageQuery(epoch=epoch))
        for types in FILTERS:
            expected = [one for one in entries_of(read) if one.type in types]
            for tail in TAILS:
                wanted = expected if tail is None else expected[max(0, len(expected) - tail) :]
                for rows, page_bytes in PAGES:
                    query = PageQuery(epoch, tail, None, None, rows, page_bytes, types)
                    filtered = await pages(log, query)
                    assert entries_of(filtered) == wanted, query
                    assert state_of(filtered[0]) == state_of(read[0])
                    counts = [len(entries_of([page])) for page in filtered]
                    assert all(counts) or counts == [0], "no page is empty, but an only one"
                    assert max(counts) <= rows


def events_of(event: LogEvent) -> Iterator[tuple[object, ...]]:
    """Yield what a follower is told: each entry with its whole content."""
    match event:
        case EntriesChanged() | TailSent():
            for one in split_entries(event.encoded):
                yield "entry", event.epoch, one.id, one.revision, one.encoded
        case TailWithdrawn():
            yield "withdrawn", event.epoch, event.id, event.revision
        case EpochOpened():
            yield "opened", event.epoch, event.revision


async def changes(
    log: WrittenLog, revision: int, types: tuple[int, ...], rows: int, page_bytes: int
) -> tuple[list[LogEvent], int]:
    """Read all changes after `revision`, and the revision that they reach."""
    events: list[LogEvent] = []
    while True:
        page = await log.store.changes.since(
            log.task_id, revision, rows=rows, page_bytes=page_bytes, types=types
        )
        events += TailFold().events(page.changes, page.task.head.tail)
        revision = page.revision
        if not page.more:
            return events, revision


@HISTORIES
@given(operations=OPERATIONS)
async def test_changes_of_some_types_are_the_changes_of_all_types_filtered(
    store: Store, operations: list[Operation]
) -> None:
    log = (await written(await WrittenLog.open(store), operations)).log
    for revision in range(log.revision + 1):
        everything, reached = await changes(log, revision, (), 1000, 1_000_000)
        for types in FILTERS:
            left = [one for event in everything if (one := event_of_types(event, types))]
            expected = [one for event in left for one in events_of(event)]
            for rows, page_bytes in PAGES:
                read, at = await changes(log, revision, types, rows, page_bytes)
                assert [one for event in read for one in events_of(event)] == expected
                assert at == reached


@HISTORIES
@given(operations=OPERATIONS)
async def test_a_follow_of_some_types_starts_before_the_last_n_of_them(
    store: Store, operations: list[Operation]
) -> None:
    log = (await written(await WrittenLog.open(store), operations)).log
    held = entries_of(await pages(log, PageQuery()))
    for types in FILTERS:
        expected = [one.id for one in held if one.type in types]
        for tail in TAILS:
            wanted = expected if tail is None else expected[max(0, len(expected) - tail) :]
            task, start = await log.store.changes.start(TaskId(log.task_id), tail, types=types)
            assert (tail == 0) <= (start == task.head.revision)
            read, _ = await changes(log, start, types, 1000, 1_000_000)
            told = [one for event in read for one in events_of(event) if one[0] == "entry"]
            assert [id_ for _, _, id_, _, _ in told] == wanted, (types, tail)


def entry(id_: int, type_: EntryType, content: str = "x") -> Entry:
    return Entry(id_, type_, Time(id_, 0), content.encode())


async def read_of(log: WrittenLog, query: PageQuery) -> tuple[list[tuple[int, str]], LogPage]:
    page = await log.store.reads.page(TaskId(log.task_id), query)
    return [(one.id, one.content) for one in entries_of([page])], page


async def test_later_pages_of_some_types_keep_the_range_of_the_first(store: Store) -> None:
    log = await WrittenLog.open(store)
    await log.entries(
        *(entry(id_, INPUT if id_ % 3 == 0 else OUTPUT) for id_ in range(10)), open_epoch=True
    )
    first, page = await read_of(log, PageQuery(types=(INPUT,), rows=2))
    assert first == [(0, "x"), (3, "x")]
    await log.grow(9, "+", keep_bytes=1)
    await log.entries(entry(10, OUTPUT), entry(12, INPUT))
    later = PageQuery(1, None, page.entries.next_ordinal, page.end, 2, types=(INPUT,))
    second, page = await read_of(log, later)
    # The tail may be newer, and what follows it is outside the range.
    assert second == [(6, "x"), (9, "x+")]
    assert page.entries.next_ordinal == page.end


async def test_a_tail_in_parts_that_does_not_fit_is_a_page_of_its_own(store: Store) -> None:
    log = await WrittenLog.open(store)
    await log.entries(entry(0, INPUT), entry(1, OUTPUT), entry(2, INPUT), open_epoch=True)
    await log.grow(2, "+", keep_bytes=1)
    first, page = await read_of(log, PageQuery(types=(INPUT,), rows=1))
    assert (first, page.entries.next_ordinal < page.end) == ([(0, "x")], True)
    assert (await read_of(log, PageQuery(types=(INPUT,), tail=1)))[0] == [(2, "x+")]
    assert (await read_of(log, PageQuery(types=(OUTPUT,), tail=1)))[0] == [(1, "x")]


async def test_an_entry_of_another_type_takes_the_place_of_a_withdrawn_one(
    store: Store, database: str
) -> None:
    log = await WrittenLog.open(store)
    await log.entries(entry(0, INPUT), open_epoch=True)
    await log.withdraw(entry(0, OUTPUT, "other"))
    assert (await read_of(log, PageQuery(types=(INPUT,))))[0] == []
    assert (await read_of(log, PageQuery(types=(OUTPUT,))))[0] == [(0, "other")]
    for types, expected in (
        ((INPUT,), [("withdrawn", 1, 0, 3)]),
        ((OUTPUT,), [("entry", 1, 0, 4)]),
    ):
        read, _ = await changes(log, 2, types, 1000, 1_000_000)
        assert [one[:4] for event in read for one in events_of(event)] == expected


async def test_a_withdrawal_of_an_unknown_type_is_told_to_all(
    store: Store, sql: Connection
) -> None:
    log = await WrittenLog.open(store)
    await log.entries(entry(0, INPUT), entry(1, OUTPUT), open_epoch=True)
    await log.withdraw()
    await sql.execute("UPDATE log_events SET type = NULL WHERE task_id = $1", log.task_id)
    read, _ = await changes(log, 3, (INPUT,), 1000, 1_000_000)
    assert [one for event in read for one in events_of(event)] == [("withdrawn", 1, 1, 4)]
