"""Pages of a log: their bytes do not depend on how the log was written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasklogs.log.delta import Delta, Piece
from tasklogs.v1 import types_pb2
from tasklogs_server.domain.errors import LogCorrupt, TaskNotFound
from tasklogs_server.domain.names import TaskName
from tasklogs_server.reads.feed import messages_of
from tasklogs_server.reads.tail_fold import TailFold
from tasklogs_server.store import Store
from tasklogs_server.store.log_reads import PageQuery
from tests.store.logs import Connection, Log, decoded, new_task
from tests.support.fixtures.postgres import MakeDatabase


@pytest.fixture(scope="module")
def database(make_database: MakeDatabase) -> Iterator[str]:
    """One database for all tests, because each test reads a task of its own."""
    with make_database() as dsn:
        yield dsn


async def fill(log: Log, count: int, *, parts: bool) -> list[str]:
    """Write `count` entries. With `parts` the last one grows after it is stored."""
    contents = [f"entry {number}".ljust(100, ".") for number in range(count)]
    await log.write(log.commit([one.encode() for one in contents], open_epoch=True))
    if parts:
        await log.write(log.commit(grow=b" and more", keep=len(contents[-1])))
        contents[-1] += " and more"
    return contents


async def pages(log: Log, query: PageQuery) -> list[list[str]]:
    """Read page after page, as page tokens do."""
    page = await log.page(query)
    read = [[entry.content for entry in decoded(page)]]
    while page.entries.next_ordinal < page.end:
        before = page.entries.next_ordinal
        page = await log.page(
            PageQuery(
                epoch=page.epoch,
                start=page.entries.next_ordinal,
                end=page.end,
                rows=query.rows,
                page_bytes=query.page_bytes,
            )
        )
        assert page.entries.next_ordinal > before
        read.append([entry.content for entry in decoded(page)])
    return read


WITH_PARTS = pytest.mark.parametrize("parts", [False, True], ids=["whole", "parts"])


@WITH_PARTS
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6, 7])
async def test_pages_by_rows_hold_each_entry_once(log: Log, rows: int, parts: bool) -> None:
    contents = await fill(log, 6, parts=parts)
    read = await pages(log, PageQuery(rows=rows))
    assert [one for page in read for one in page] == contents
    assert [len(page) for page in read] == [min(rows, 6 - start) for start in range(0, 6, rows)]


@WITH_PARTS
@pytest.mark.parametrize("page_bytes", [1, 100, 122, 123, 124, 250, 369, 370, 500, 615, 700])
async def test_pages_by_bytes_hold_each_entry_once(log: Log, page_bytes: int, parts: bool) -> None:
    contents = await fill(log, 5, parts=parts)
    read = await pages(log, PageQuery(page_bytes=page_bytes))
    assert [one for page in read for one in page] == contents
    assert all(read)


@WITH_PARTS
async def test_a_page_ends_after_the_entry_that_reaches_its_bytes(log: Log, parts: bool) -> None:
    await fill(log, 4, parts=parts)
    one = len((await log.page(PageQuery(rows=1))).entries.encoded)
    assert [len(page) for page in await pages(log, PageQuery(page_bytes=2 * one))] == [2, 2]
    assert len((await pages(log, PageQuery(page_bytes=2 * one + 1)))[0]) == 3
    # The page ends exactly before the tail in parts.
    assert [len(page) for page in await pages(log, PageQuery(page_bytes=3 * one))] == [3, 1]
    assert [len(page) for page in await pages(log, PageQuery(rows=3))] == [3, 1]


@WITH_PARTS
@pytest.mark.parametrize("page_bytes", [1_000, 10_000, 100_000])
async def test_pages_of_entries_of_all_sizes_hold_each_entry_once(
    log: Log, page_bytes: int, parts: bool
) -> None:
    """The average size is no guide here: it is far from that of the first half, and the second."""
    sizes = [*[1] * 400, *[300] * 200, *[2_000] * 100, *[60_000, 1] * 10, *[5] * 300]
    contents = [f"{number}".ljust(size, ".") for number, size in enumerate(sizes)]
    await log.write(log.commit([one.encode() for one in contents], open_epoch=True))
    if parts:
        await log.write(log.commit(grow=b" and more", keep=len(contents[-1])))
        contents[-1] += " and more"
    read = await pages(log, PageQuery(page_bytes=page_bytes))
    assert [one for page in read for one in page] == contents
    sent = [sum(40 + len(one) for one in page) for page in read]
    # No page but the last, and the one before a tail with parts, is much shorter than asked for.
    short = [size for size, page in zip(sent[:-2], read, strict=False) if len(page) < 1000]
    assert min(short) > page_bytes / 3
    assert max(sent) < page_bytes + 61_000


@WITH_PARTS
@pytest.mark.parametrize("tail", [0, 1, 2, 6, 7, 2**31 - 1])
async def test_the_last_n_entries(log: Log, tail: int, parts: bool) -> None:
    contents = await fill(log, 6, parts=parts)
    assert await log.contents(PageQuery(tail=tail)) == contents[max(0, 6 - tail) :]


async def test_a_log_that_was_never_written_has_no_entries(log: Log) -> None:
    page = await log.page()
    assert (page.entries.encoded, page.epoch, page.first_id) == (b"", 0, None)
    assert page.entries.next_ordinal == page.end


async def test_a_withdrawn_only_entry_leaves_an_empty_epoch(log: Log) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    await log.write(log.commit(withdraw=True))
    page = await log.page()
    assert (page.entries, page.epoch, page.end) == ((b"", 0, False), 1, 0)


async def test_earlier_epochs_stay_readable(log: Log) -> None:
    contents = await fill(log, 3, parts=False)
    await log.write(log.commit([b"new"], open_epoch=True))
    await log.write(log.commit(grow=b"er", keep=3))
    assert await log.contents() == ["newer"]
    assert await log.contents(PageQuery(epoch=2)) == ["newer"]
    assert await log.contents(PageQuery(epoch=1)) == contents
    assert await log.contents(PageQuery(epoch=1, tail=2)) == contents[1:]
    assert await log.contents(PageQuery(epoch=3)) == []


async def test_a_tail_of_1500_parts_is_folded_when_it_is_read(log: Log, sql: Connection) -> None:
    await log.write(log.commit([b"start"], open_epoch=True))
    revision = log.head.revision
    rows = []
    expected = bytearray(b"start")
    for number in range(1500):
        keep, text = max(0, len(expected) - number % 3), f"{number % 10}".encode()
        rows.append((log.task_id, revision + 1 + number, keep, text))
        del expected[keep:]
        expected += text
    await sql.copy_records_to_table("log_tail_parts", records=rows)
    await sql.execute(
        "UPDATE log_heads SET revision = $2, tail_revision = $2, tail_part_bytes = 1500"
        " WHERE task_id = $1",
        log.task_id,
        revision + 1500,
    )
    (entry,) = decoded(await log.page())
    assert entry.content == expected.decode()
    assert entry.revision == revision + 1500
    assert await log.store.sessions.tail_content(log.task_id) == bytes(expected)


async def test_parts_of_pieces_are_folded_when_they_are_read(log: Log, sql: Connection) -> None:
    await log.write(log.commit([b"left right"], open_epoch=True))
    await log.write(log.commit(change=Delta((Piece(5, 5, b" "), Piece(0, 4, "é".encode())))))
    await log.write(log.commit(grow=b"!", keep=12))
    await log.write(log.commit(change=Delta((Piece(0, 6), Piece(0, 6), Piece(12, 1)))))
    assert await log.contents() == ["right right !"]
    assert await log.store.sessions.tail_content(log.task_id) == b"right right !"
    keeps = await sql.fetch(
        "SELECT keep_bytes FROM log_tail_parts WHERE task_id = $1 ORDER BY revision", log.task_id
    )
    assert [row["keep_bytes"] for row in keeps] == [None, 12, None]


@pytest.mark.parametrize(
    "stored",
    [b"\xff\xff", b"", b"\x0a\x02\x10\x63", b"\x0a\x03\x1a\x01\xff"],
    ids=["no message", "no pieces", "past the end", "no text"],
)
async def test_stored_pieces_that_cannot_be_used_are_corruption(
    log: Log, sql: Connection, stored: bytes
) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    await log.write(log.commit(change=Delta((Piece(0, 1), Piece(0, 1)))))
    await sql.execute("UPDATE log_tail_parts SET text = $2 WHERE task_id = $1", log.task_id, stored)
    page = await log.page()
    with pytest.raises(LogCorrupt):
        page.entries  # noqa: B018
    with pytest.raises(LogCorrupt):
        await log.store.sessions.tail_content(log.task_id)
    with pytest.raises(LogCorrupt):
        await _follow(log)


async def _follow(log: Log) -> None:
    read = await log.store.changes.since(log.task_id, 0)
    messages_of(TailFold(), log.task_id, read.changes, read.task.head.tail)


async def test_a_part_that_does_not_fit_is_corruption(log: Log) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    await log.write(log.commit(grow=b"x", keep=7))
    page = await log.page()
    with pytest.raises(LogCorrupt):
        page.entries  # noqa: B018
    with pytest.raises(LogCorrupt):
        await log.store.sessions.tail_content(log.task_id)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(contents=st.lists(st.text(st.sampled_from("a\0ä€𝄞\n\\'"), max_size=20), min_size=1))
async def test_any_content_is_read_back_unchanged(store: Store, contents: list[str]) -> None:
    log = await Log.open(store, await new_task(store))
    encoded = [one.encode() for one in contents]
    await log.write(log.commit(encoded, open_epoch=True))
    await log.write(log.commit(grow="\0𝄞".encode(), keep=len(encoded[-1])))
    contents[-1] += "\0𝄞"
    assert await log.contents() == contents


async def test_a_task_is_found_by_its_name(store: Store) -> None:
    task_id = await new_task(store, "named")
    page = await store.reads.page(TaskName("local", "named"), PageQuery())
    assert page.task_id == task_id
    for missing in (TaskName("local", "other"), TaskName("other", "named")):
        with pytest.raises(TaskNotFound):
            await store.reads.page(missing, PageQuery())


@WITH_PARTS
async def test_a_tail_of_a_later_versions_type_is_read_as_it_is(
    log: Log, sql: Connection, parts: bool
) -> None:
    """A server that was rolled back must not refuse reads of the whole task."""
    await fill(log, 1, parts=parts)
    await sql.execute("UPDATE log_heads SET tail_type = 99 WHERE task_id = $1", log.task_id)
    (entry,) = decoded(await log.page())
    assert entry.type == (99 if parts else types_pb2.TASK_LOG_TYPE_OUTPUT)
    head = (await log.store.tasks.get(log.task_id)).head
    assert head.tail is not None
    assert head.tail.type == 99
    assert (await Log.open(log.store, log.task_id)).head.tail == head.tail


@pytest.mark.parametrize(
    "names", [[], [b"one"], [b"", b"", b"", b""], [b"\xff", b"", b""], [None, b"", b""]]
)
async def test_names_of_a_tail_that_cannot_be_decoded_are_corruption(
    log: Log, sql: Connection, names: list[bytes | None]
) -> None:
    await fill(log, 1, parts=True)
    await sql.execute("UPDATE log_heads SET tail_names = $1 WHERE task_id = $2", names, log.task_id)
    with pytest.raises(LogCorrupt):
        _ = (await log.page()).entries


async def test_a_tail_without_names_has_no_bytes_for_them(log: Log, sql: Connection) -> None:
    await fill(log, 2, parts=True)
    query = "SELECT tail_names IS NULL FROM log_heads WHERE task_id = $1"
    assert await sql.fetchval(query, log.task_id)
