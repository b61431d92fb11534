"""From appends to rows: random histories are read back as they were appended."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings

from tasklogs.log import delta as delta_module
from tasklogs.log.append import Append, TailChange
from tasklogs.log.delta import Delta, Piece
from tasklogs.log.entry import Entry, EntryType, Names, Time
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs_server.domain.errors import LimitExceeded, ProtocolViolation, TaskLogsError
from tasklogs_server.domain.names import TaskId
from tasklogs_server.ingest import growing_entry as growing_module
from tasklogs_server.ingest.draft import Draft
from tasklogs_server.ingest.messages import cost_bytes
from tasklogs_server.store import Store
from tasklogs_server.store.log_reads import PageQuery
from tasklogs_server.store.log_writes import Outcome
from tasklogs_server.store.records import Commit, LogHead, TailWithdrawn
from tests.ingest.histories import (
    EMPTY_HEAD,
    NOW,
    OPERATIONS,
    TASK,
    History,
    ModelStore,
    Operation,
    as_read,
    shown,
)
from tests.log.vectors import delta_of, delta_vectors
from tests.store.logs import Connection, Log, decoded, new_task
from tests.store.test_evictions import rows_of


@pytest.fixture(scope="module", autouse=True)
def _folds_early() -> Iterator[None]:
    """Fold early, so that the short histories of these tests reach a fold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing_module, "_FOLD_AT_LEAST_BYTES", 40)
        patch.setattr(growing_module, "_FOLD_AT_PARTS", 2)
        patch.setattr(growing_module, "_CONTENT_BYTES_PER_PART", 10)
        patch.setattr(delta_module, "_PIECE_COST_BYTES", 4)
        yield


@settings(max_examples=400, deadline=None)
@given(OPERATIONS)
def test_what_is_committed_reads_back_as_it_was_appended(operations: Sequence[Operation]) -> None:
    history, store = History(), ModelStore()
    for operation in [*operations, ("take", (), 0), ("reconnect", (), 0)]:
        match operation[0]:
            case "take":
                if (commit := history.next_commit()) is not None:
                    store.apply(commit)
                _agree(history, store)
            case "fold" if history.draft.is_empty:
                _fold(history, store)
                _agree(history, store)
            case "release":
                history.draft.release_tail()
                if history.draft.lacks_tail:
                    history.draft.supply_tail(store.tail_content())
            case "reconnect" if history.draft.is_empty:
                content = store.tail_content() if store.head.tail is not None else None
                history.draft = Draft(store.head, content, tail_parts=len(store.parts))
                history.has_tail = store.head.tail is not None
                _agree(history, store)
            case _:
                history.apply(operation)


def _fold(history: History, store: ModelStore) -> None:
    folded = history.draft.fold()
    assert (folded is None) == (not store.parts)
    if folded is not None:
        revision, row = folded
        assert revision == store.head.revision
        assert row.content == store.tail_content()
        store.rows[row.epoch, row.ordinal] = (row.revision, row.head, row.content)
        store.parts.clear()
        assert history.draft.fold() is None, "a second fold has nothing to do"


def _agree(history: History, store: ModelStore) -> None:
    assert shown(store.epochs()) == as_read(history.epochs)
    assert store.head.bytes == history.size_bytes
    assert store.head.rows == len(store.rows) + store.events
    if _seals_unsaid(store.head, history):
        return
    assert store.head.digest == history.sealed_digest
    assert store.head.entries == (len(history.epochs[-1]) if history.epochs else 0)
    assert (store.head.tail is not None) == history.has_tail


def _seals_unsaid(head: LogHead, history: History) -> bool:
    """An entry was added and withdrawn before a commit. The next commit says what it sealed."""
    return head.tail is not None and not history.has_tail


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(OPERATIONS)
async def test_postgres_reads_back_what_was_appended(
    store: Store, sql: Connection, operations: Sequence[Operation]
) -> None:
    log = await Log.open(store, await new_task(store))
    history = History()
    for operation in [*operations, ("take", (), 0)]:
        if operation[0] == "take":
            commit = history.draft.next_commit(log.task_id, log.fence, NOW)
            if commit is not None:
                head = replace(commit.head, generation=log.head.generation)
                assert await log.write(replace(commit, head=head)) is Outcome.COMMITTED
            await _reads_back(log, history, sql)
        elif operation[0] == "fold" and history.draft.is_empty:
            folded = history.draft.fold()
            if folded is not None:
                revision, row = folded
                await store.writes.fold(
                    log.task_id,
                    generation=log.head.generation,
                    fence=log.fence,
                    revision=revision,
                    row=row,
                )
            await _reads_back(log, history, sql)
        else:
            history.apply(operation)


async def _reads_back(log: Log, history: History, sql: Connection) -> None:
    epochs = []
    revisions: list[int] = []
    for number in range(1, len(history.epochs) + 1):
        page = await log.store.reads.page(TaskId(log.task_id), PageQuery(epoch=number))
        epochs.append(decoded(page))
        revisions += [entry.revision for entry in decoded(page)]
    assert shown(epochs) == as_read(history.epochs)
    assert revisions == sorted(set(revisions)), "revisions grow with epochs and ids"
    head = (await log.store.tasks.get(log.task_id)).head
    assert head.bytes == history.size_bytes
    assert head.rows == await rows_of(sql, log.task_id)
    assert head.digest == history.sealed_digest or _seals_unsaid(head, history)


def entry(id_: int, content: str = "x", *, type_: EntryType = EntryType.OUTPUT) -> Entry:
    return Entry(id_, type_, Time(id_, 0), content.encode())


def grown(id_: int, keep: int, text: str) -> TailChange:
    return TailChange(id_, Time(9, 0), Delta.keeping(keep, text.encode()))


def opened(*entries: Entry) -> Draft:
    draft = Draft(EMPTY_HEAD)
    draft.apply(Append(1, open_epoch=True, entries=entries))
    return draft


def taken(draft: Draft) -> Commit:
    commit = draft.next_commit(TASK, 1, NOW)
    assert commit is not None
    return commit


REFUSED = {
    "entries without an epoch": (Draft(EMPTY_HEAD), Append(1, entries=[entry(0)])),
    "an id below the tail": (opened(entry(3)), Append(2, entries=[entry(2)])),
    "ids that fall within one append": (
        opened(entry(0)),
        Append(2, entries=[entry(5), entry(4)]),
    ),
    "a tail that changes its type": (
        opened(entry(3)),
        Append(2, entries=[entry(3, type_=EntryType.INPUT)]),
    ),
    "a tail that changes its source_id": (
        opened(entry(3)),
        Append(2, entries=[replace(entry(3), names=Names(source_id="m"))]),
    ),
    "a tail that changes its name": (
        opened(replace(entry(3), names=Names(name="m"))),
        Append(2, entries=[entry(3)]),
    ),
    "a tail that changes its call_id": (
        opened(replace(entry(3), names=Names(call_id="m"))),
        Append(2, entries=[replace(entry(3), names=Names(call_id="n"))]),
    ),
    "a delta for a sealed entry": (opened(entry(0), entry(1)), Append(2, tail=grown(0, 0, "y"))),
    "a delta past the end": (opened(entry(0)), Append(2, tail=grown(0, 2, "y"))),
    "a delta inside a code point": (opened(entry(0, "€")), Append(2, tail=grown(0, 1, "y"))),
    "a withdrawal where there is no tail": (opened(), Append(2, withdraw_tail=True)),
    "a second withdrawal": (
        opened(entry(0), entry(1)),
        Append(2, withdraw_tail=True, tail=grown(1, 0, "")),
    ),
}


@pytest.mark.parametrize(("draft", "append"), REFUSED.values(), ids=REFUSED.keys())
def test_an_invalid_append_is_refused(draft: Draft, append: Append) -> None:
    with pytest.raises(ProtocolViolation):
        draft.apply(append)


TOO_LONG = {
    "a whole entry": Append(2, entries=[entry(1, "x" * (MAX_CONTENT_BYTES + 1))]),
    "growth": Append(2, tail=grown(0, 1, "x" * MAX_CONTENT_BYTES)),
}


@pytest.mark.parametrize("append", TOO_LONG.values(), ids=TOO_LONG.keys())
def test_content_above_the_limit_is_refused(append: Append) -> None:
    with pytest.raises(TaskLogsError):
        opened(entry(0)).apply(append)


def test_changes_of_a_tail_between_two_commits_become_one() -> None:
    draft = opened(entry(0, ""))
    taken(draft)
    for number in range(10):
        draft.apply(Append(2 + number, tail=grown(0, number, "y")))
    commit = taken(draft)
    assert (commit.base_revision, commit.head.revision) == (2, 3)
    assert commit.rows == []
    assert commit.part is not None
    assert commit.part.delta == Delta.keeping(0, b"y" * 10)


def changed(*pieces: Piece, crc32: int | None = None) -> Append:
    return Append(2, tail=TailChange(0, Time(9, 0), Delta(pieces), crc32))


def test_a_change_of_several_pieces_is_stored_as_it_came() -> None:
    draft = opened(entry(0, "a" * 100 + "1" + "b" * 100))
    taken(draft)
    draft.apply(changed(Piece(0, 100, b"2"), Piece(101, 100)))
    part = taken(draft).part
    assert part is not None
    assert part.delta == Delta((Piece(0, 100, b"2"), Piece(101, 100)))


def test_several_changes_of_pieces_are_composed() -> None:
    draft = opened(entry(0, "a" * 100 + "1" + "b" * 100))
    taken(draft)
    draft.apply(changed(Piece(0, 100, b"23"), Piece(101, 100)))
    draft.apply(Append(2, tail=grown(0, 202, "!")))
    draft.apply(changed(Piece(0, 101), Piece(102, 101, b"?")))
    commit = taken(draft)
    assert commit.part is not None
    assert commit.part.delta == Delta((Piece(0, 100, b"2"), Piece(101, 100, b"!?")))


def test_a_text_that_grew_before_pieces_is_composed_with_them() -> None:
    draft = opened(entry(0, "a" * 200))
    taken(draft)
    draft.apply(Append(2, tail=grown(0, 200, "b")))
    draft.apply(changed(Piece(100, 101)))
    part = taken(draft).part
    assert part is not None
    assert part.delta == Delta((Piece(100, 100, b"b"),))


def test_pieces_that_are_too_many_or_too_long_become_a_prefix_and_a_text() -> None:
    draft = opened(entry(0, "a" * 600))
    taken(draft)
    draft.apply(changed(*(Piece(0, 1, b"b") for _ in range(300))))
    part = taken(draft).part
    assert part is not None
    assert part.delta == Delta.keeping(1, b"b" + b"ab" * 299)
    draft.apply(changed(Piece(0, 1), Piece(2, 598)))
    draft.apply(changed(*(Piece(2 * index, 1) for index in range(299))))
    part = taken(draft).part
    assert part is not None
    assert part.delta == Delta.keeping(1, b"b" * 298)


def test_a_change_whose_checksum_is_wrong_adds_nothing() -> None:
    draft = opened(entry(0, "ab"))
    taken(draft)
    wrong = changed(Piece(0, 2, b"c"), crc32=zlib.crc32(b"xxc"))
    with pytest.raises(ProtocolViolation):
        draft.apply(replace(wrong, entries=[entry(1)]))
    assert draft.is_empty
    assert draft.tail_bytes == 2
    draft.apply(changed(Piece(0, 2, b"c"), crc32=zlib.crc32(b"abc")))
    commit = taken(draft)
    assert commit.part is not None
    assert commit.part.crc32 == zlib.crc32(b"abc")


@pytest.mark.parametrize("vector", delta_vectors()["refused"], ids=lambda one: one["why"])
def test_the_vectors_of_wrong_changes_are_refused(vector: dict[str, Any]) -> None:
    draft = opened(entry(0, vector["base"]))
    taken(draft)
    with pytest.raises(ProtocolViolation):
        draft.apply(changed(*delta_of(vector).pieces, crc32=vector["crc32"]))
    assert draft.is_empty


def test_ranges_that_are_repeated_past_the_limit_are_refused() -> None:
    draft = opened(entry(0, "x" * 1024))
    with pytest.raises(LimitExceeded):
        draft.apply(changed(*(Piece(0, 1024) for _ in range(1025))))
    assert draft.tail_bytes == 1024
    draft.apply(changed(*(Piece(0, 1024) for _ in range(1024))))
    assert draft.tail_bytes == MAX_CONTENT_BYTES


def test_parts_that_copy_the_content_are_folded_after_some_sixty() -> None:
    """A reader applies them all. A part that keeps a prefix costs its text only."""
    draft = opened(entry(0, "x" * 80_000))
    taken(draft)
    parts = 0
    while True:
        draft.apply(changed(Piece(0, 40_000, b"y"), Piece(40_001, 39_999)))
        if taken(draft).part is None:
            break
        parts += 1
    assert 40 < parts < 80


def test_the_cost_of_an_append_counts_its_pieces_and_what_they_repeat() -> None:
    one = cost_bytes(changed(Piece(0, 100)))
    assert cost_bytes(changed(*(Piece(0, 0) for _ in range(4096)))) >= one + 4095 * 200
    assert cost_bytes(changed(Piece(0, 100), Piece(0, 100))) >= one + 100


def test_an_entry_added_and_withdrawn_between_two_commits_is_not_stored() -> None:
    draft = opened(entry(0))
    taken(draft)
    draft.apply(Append(2, entries=[entry(1)]))
    draft.apply(Append(3, withdraw_tail=True))
    assert draft.next_commit(TASK, 1, NOW) is None


def test_a_withdrawn_entry_is_noted_with_the_revision_of_its_withdrawal() -> None:
    draft = opened(entry(0), entry(5))
    taken(draft)
    draft.apply(Append(2, withdraw_tail=True))
    assert taken(draft).events == [TailWithdrawn(4, 1, 1, 5, EntryType.OUTPUT)]


def test_a_tail_sealed_in_parts_is_folded_once_and_keeps_its_revision() -> None:
    draft = opened(entry(0, "a"))
    taken(draft)
    draft.apply(Append(2, tail=grown(0, 1, "b")))
    taken(draft)
    draft.apply(Append(3, entries=[entry(1, "c")]))
    commit = taken(draft)
    assert [(row.ordinal, row.revision, row.content) for row in commit.rows] == [
        (0, 3, b"ab"),
        (1, 4, b"c"),
    ]
    assert commit.drops_parts


def test_a_draft_without_its_tail_accepts_no_append() -> None:
    commit = taken(opened(entry(0)))
    with pytest.raises(AssertionError):
        Draft(commit.head).apply(Append(1, entries=[entry(1)]))


def test_after_a_withdrawal_ids_still_grow_beyond_what_is_sealed() -> None:
    log = Draft(EMPTY_HEAD)
    log.apply(Append(1, open_epoch=True, entries=[entry(4), entry(6)]))
    log.apply(Append(2, withdraw_tail=True))
    commit = log.next_commit(uuid4(), 1, None)
    assert commit is not None
    assert commit.head.tail is None
    reconnected = Draft(commit.head, last_sealed_id=4)
    with pytest.raises(ProtocolViolation):
        reconnected.apply(Append(1, entries=[entry(4)]))
    reconnected.apply(Append(1, entries=[entry(5)]))


def test_an_append_that_opens_an_epoch_and_withdraws_the_tail_is_refused() -> None:
    log = Draft(EMPTY_HEAD)
    log.apply(Append(1, open_epoch=True, entries=[entry(0)]))
    with pytest.raises(ProtocolViolation):
        log.apply(Append(2, open_epoch=True, withdraw_tail=True))
