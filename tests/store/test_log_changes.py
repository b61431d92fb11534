"""What changed since a revision, compared with a model that replays the commits."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from tasklogs.log.append import Append, TailChange
from tasklogs.log.delta import Delta
from tasklogs.log.entry import NO_NAMES, Entry, Names, Time
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2
from tasklogs_server.domain.errors import TaskNotFound
from tasklogs_server.domain.names import TaskId
from tasklogs_server.ingest import growing_entry as growing_module
from tasklogs_server.reads.feed import messages_of
from tasklogs_server.reads.tail_fold import TailFold
from tasklogs_server.store import Store, log_changes
from tasklogs_server.store.log_changes import Changes, EntriesChanged, TailChanged
from tasklogs_server.store.records import Commit, EpochOpened, TailWithdrawn
from tests.reads.follow_view import Key, View
from tests.reads.written_log import WrittenLog, entry, many, new_task
from tests.store.test_plans import explain
from tests.support.fixtures.content_deltas import CUTS, cut, result_of


@pytest.fixture(scope="module", autouse=True)
def _folds_early() -> Iterator[None]:
    """Fold early, so that the short histories of these tests reach a fold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing_module, "_FOLD_AT_PARTS", 2)
        patch.setattr(growing_module, "_CONTENT_BYTES_PER_PART", 10)
        yield


@dataclass
class Model:
    """The log according to its commits."""

    entries: dict[tuple[int, int], types_pb2.TaskLogEntry] = field(default_factory=dict)
    """By epoch and ordinal."""
    events: list[EpochOpened | TailWithdrawn] = field(default_factory=list)
    revision: int = 0

    def replay(self, commit: Commit) -> None:
        for event in commit.events:
            self.events.append(event)
            if isinstance(event, TailWithdrawn):
                self.entries.pop((event.epoch, event.ordinal), None)
        for row in commit.rows:
            parsed = pb.GetTaskLogsResponse.FromString(row.head + row.content)
            self.entries[row.epoch, row.ordinal] = parsed.logs[0]
        head = commit.head
        if commit.part is not None:
            assert head.tail is not None
            tail = self.entries[head.epoch, head.entries - 1]
            content = result_of(tail.content.encode(), commit.part.delta)
            assert commit.part.crc32 == zlib.crc32(content)
            tail.content = content.decode()
            tail.time.seconds, tail.time.nanos = head.tail.time
            tail.revision = commit.part.revision
        self.revision = head.revision

    def log(self) -> dict[Key, types_pb2.TaskLogEntry]:
        """The entries by epoch and id."""
        return {(epoch, one.id): one for (epoch, _), one in self.entries.items()}

    def revisions_after(self, revision: int) -> list[int]:
        """The revisions of what a reader that knows the log up to `revision` must get."""
        entries = [one.revision for one in self.entries.values()]
        known = [*entries, *(event.revision for event in self.events)]
        return sorted(one for one in known if one > revision)

    def view(self) -> View:
        """The log as a follower has it that was sent everything."""
        view = View(start=0, revision=self.revision)
        for key, one in self.log().items():
            view.entries[key] = types_pb2.TaskLogEntry()
            view.entries[key].CopyFrom(one)
        return view


async def pages_since(
    log: WrittenLog, revision: int, *, rows: int = 1000, page_bytes: int = 1_000_000
) -> Sequence[Changes]:
    """Read page after page to the end."""
    pages: list[Changes] = []
    while True:
        page = await log.store.changes.since(
            log.task_id, revision, rows=rows, page_bytes=page_bytes
        )
        assert page.revision >= revision
        pages.append(page)
        revision = page.revision
        if not page.more:
            return pages


def encoded_changes(pages: Sequence[Changes]) -> list[pb.FollowTaskLogsResponse]:
    """Return the messages for these pages, as a client decodes them."""
    fold = TailFold()
    return [
        pb.FollowTaskLogsResponse.FromString(message.encoded(as_delta=False))
        for page in pages
        for message in messages_of(fold, page.task.task_id, page.changes, page.task.head.tail)
    ]


def revisions_of(message: pb.FollowTaskLogsResponse) -> list[int]:
    match message.WhichOneof("event"):
        case "entries":
            return [one.revision for one in message.entries.logs]
        case "entry_withdrawn":
            return [message.entry_withdrawn.revision]
        case _:
            return [message.epoch_started.revision]


async def written(store: Store) -> tuple[WrittenLog, Model, dict[int, View]]:
    """Create a log, its model, and the view of a follower at each commit."""
    log, model = await WrittenLog.open(store), Model()
    views = {0: model.view()}

    def on_commit(commit: Commit) -> None:
        model.replay(commit)
        views[model.revision] = model.view()

    log.on_commit = on_commit
    return log, model, views


async def check_from_everywhere(
    log: WrittenLog, model: Model, views: dict[int, View], **paging: Any
) -> None:
    """Read from every revision. The pages must have exactly the later changes, in order."""
    for revision in range(model.revision + 1):
        messages = encoded_changes(await pages_since(log, revision, **paging))
        revisions = [one for message in messages for one in revisions_of(message)]
        assert revisions == model.revisions_after(revision), f"since {revision}"
        if revision in views:
            view = views[revision]
            view.reconnect(expects_status=False)  # the store sends none
            for message in messages:
                view.apply(message)
            assert view.entries == model.log(), f"applied on {revision}"


Step = tuple[str, Any]
contents = st.text(max_size=12)
steps = st.one_of(
    st.tuples(st.just("add"), st.lists(contents, min_size=1, max_size=3)),
    st.tuples(st.just("grow"), st.tuples(st.floats(0, 1), contents)),
    st.tuples(st.just("grow"), st.tuples(st.just(1.0), contents)),
    st.tuples(st.just("cut"), CUTS),
    st.tuples(st.just("replace"), st.tuples(contents, st.integers(0, 2))),
    st.tuples(st.just("withdraw"), st.tuples(st.booleans(), st.lists(contents, max_size=2))),
    st.tuples(st.just("epoch"), st.lists(contents, max_size=2)),
)
histories = st.lists(
    st.one_of(
        st.lists(steps, min_size=1, max_size=3),  # one commit
        st.sampled_from(["fold", "reopen"]),
    ),
    max_size=14,
)


def _names(id_: int) -> Names:
    """Return the names of every entry with this id: none, one or all of them."""
    return (NO_NAMES, Names(call_id="c1"), Names("m\0", "€", "c1"))[id_ % 3]


class Scribe:
    """Makes appends from steps, as an agent may send them."""

    def __init__(self) -> None:
        self._next_id = 0
        self._tail: Entry | None = None
        self._began = False

    def append(self, step: Step) -> Append:
        kind, what = step
        if kind == "epoch" or not self._began:
            self._began, self._next_id, self._tail = True, 0, None
            texts = what if kind in ("epoch", "add") else []
            return Append(1, open_epoch=True, entries=self._new(texts))
        if kind == "add" or self._tail is None:
            return Append(1, entries=self._new(what if kind == "add" else ["?"]))
        if kind == "grow":
            return self._grow(*what)
        if kind == "cut" and self._tail is not None:
            return self._change(cut(self._tail.content, what))
        if kind == "replace":
            return self._replace(*what)
        return self._withdraw(*what)

    def _grow(self, share: float, text: str) -> Append:
        tail = self._tail
        assert tail is not None
        kept = tail.content.decode()
        kept = kept[: round(share * len(kept))]
        return self._change(Delta.keeping(len(kept.encode()), text.encode()))

    def _change(self, change: Delta) -> Append:
        tail = self._tail
        assert tail is not None
        time = Time(tail.time.seconds, tail.time.nanos + 1)
        content = result_of(tail.content, change)
        self._tail = replace(tail, time=time, content=content)
        return Append(1, tail=TailChange(tail.id, time, change, zlib.crc32(content)))

    def _replace(self, text: str, dropped: int) -> Append:
        assert self._tail is not None
        id_, dropped = self._tail.id, dropped + self._tail.dropped_bytes
        self._tail = entry(id_, text, dropped_bytes=dropped, names=_names(id_))
        return Append(1, entries=[self._tail])

    def _withdraw(self, takes_id_again: bool, texts: list[str]) -> Append:
        assert self._tail is not None
        self._next_id = self._tail.id + (0 if takes_id_again else 1)
        self._tail = None
        return Append(1, withdraw_tail=True, entries=self._new(texts))

    def _new(self, texts: list[str]) -> list[Entry]:
        ids = range(self._next_id, self._next_id + len(texts))
        made = [entry(id_, text, names=_names(id_)) for id_, text in zip(ids, texts, strict=True)]
        self._next_id += len(made)
        self._tail = made[-1] if made else None
        return made


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    history=histories,
    rows=st.integers(1, 4),
    page_bytes=st.integers(1, 60),
    known=st.integers(0, 40),
)
async def test_changes_from_any_revision_are_complete_and_in_order(
    store: Store, history: list[Any], rows: int, page_bytes: int, known: int
) -> None:
    log, model, views = await written(store)
    scribe = Scribe()
    for what in history:
        if what == "fold":
            await log.fold()
        elif what == "reopen":
            await log.reopen()
        else:
            await log.append(*(scribe.append(step) for step in what))
    await check_from_everywhere(log, model, dict(views))
    begun = min(known, model.revision)
    pages = await pages_since(log, begun, rows=rows, page_bytes=page_bytes)
    assert [one for message in encoded_changes(pages) for one in revisions_of(message)] == (
        model.revisions_after(begun)
    )


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=histories, looks=st.lists(st.booleans(), min_size=14, max_size=14))
async def test_a_caller_that_holds_the_tail_gets_only_its_growth(
    store: Store, history: list[Any], looks: list[bool]
) -> None:
    """A feed reads after some of the commits, and its follower gets each delta that exists."""
    log, model, _ = await written(store)
    scribe, fold, view = Scribe(), TailFold(), View(start=0)
    view.reconnect(expects_status=False)

    async def look() -> None:
        read = await store.changes.since(
            log.task_id, view.revision, held_revision=fold.held_revision
        )
        for message in messages_of(fold, log.task_id, read.changes, read.task.head.tail):
            event = message.event
            base = getattr(event, "base_revision", None)
            fits = view.sent_revision(event) == base if base is not None else False
            view.apply(pb.FollowTaskLogsResponse.FromString(message.encoded(as_delta=fits)))
        assert view.entries == model.log()

    for what, looks_now in zip(history, looks, strict=False):
        if what == "fold":
            await log.fold()
        elif what == "reopen":
            await log.reopen()
        else:
            await log.append(*(scribe.append(step) for step in what))
        if looks_now:
            await look()
    await look()


async def test_each_entry_comes_once_with_its_latest_state(store: Store) -> None:
    log, _, _ = await written(store)
    await log.entries(entry(0, "a"), entry(1, "b"), open_epoch=True)  # revisions 1 to 3
    for index in range(5):
        await log.grow(1, str(index), keep_bytes=1 + index)  # 4 to 8
    messages = encoded_changes(await pages_since(log, 0))
    assert [revisions_of(one) for one in messages] == [[1], [2], [8]]
    assert messages[-1].entries.logs[0].content == "b01234"


async def test_a_caller_that_holds_the_tail_gets_only_its_new_parts(
    store: Store,
) -> None:
    log, _, _ = await written(store)
    await log.entries(entry(0, "a"), open_epoch=True)  # revisions 1, 2
    await log.grow(0, "b", keep_bytes=1)  # 3
    await log.grow(0, "c", keep_bytes=2)  # 4
    held = await store.changes.since(log.task_id, 3, held_revision=3)
    assert [(type(one), one.revision) for one in held.changes] == [(TailChanged, 4)]
    assert isinstance(held.changes[0], TailChanged)
    assert (held.changes[0].base, held.changes[0].deltas) == (None, [Delta.keeping(2, b"c")])
    whole = await store.changes.since(log.task_id, 3)
    assert isinstance(whole.changes[0], TailChanged)
    assert (whole.changes[0].base, len(whole.changes[0].deltas)) == (b"a", 2)


async def test_a_held_tail_that_was_replaced_is_sent_whole(store: Store) -> None:
    log, _, _ = await written(store)
    await log.entries(entry(0, "a"), open_epoch=True)
    await log.grow(0, "b", keep_bytes=1)  # revision 3
    await log.entries(entry(0, "other"))  # 4: a row again
    replaced = await store.changes.since(log.task_id, 3, held_revision=3)
    assert isinstance(replaced.changes[0], EntriesChanged)
    assert replaced.changes[0].tail_content == b"other"
    await log.grow(0, "!", keep_bytes=5)  # 5
    grown = await store.changes.since(log.task_id, 3, held_revision=3)
    assert isinstance(grown.changes[0], TailChanged)
    assert (grown.changes[0].base, grown.changes[0].deltas) == (b"other", [Delta.keeping(5, b"!")])


async def test_folding_the_tail_at_a_goodbye_is_no_change(store: Store) -> None:
    log, _, _ = await written(store)
    await log.entries(entry(0, "a"), open_epoch=True)
    await log.grow(0, "b", keep_bytes=1)  # revision 3
    await log.fold()
    assert encoded_changes(await pages_since(log, 3)) == []
    assert encoded_changes(await pages_since(log, 2))[0].entries.logs[0].content == "ab"
    await log.reopen()
    await log.grow(0, "c", keep_bytes=2)
    held = await store.changes.since(log.task_id, 3, held_revision=3)
    assert isinstance(held.changes[0], TailChanged)
    assert (held.changes[0].base, held.changes[0].deltas) == (None, [Delta.keeping(2, b"c")])


async def test_sealing_a_tail_in_parts_is_no_change_of_it(store: Store) -> None:
    log, _, _ = await written(store)
    await log.entries(entry(0, "a"), open_epoch=True)
    await log.grow(0, "b", keep_bytes=1)  # revision 3
    await log.entries(entry(1, "next"))  # 4
    assert [revisions_of(one) for one in encoded_changes(await pages_since(log, 3))] == [[4]]
    assert [revisions_of(one) for one in encoded_changes(await pages_since(log, 2))] == [[3, 4]]


async def test_a_withdrawal_is_reported_and_its_ordinal_is_used_again(
    store: Store,
) -> None:
    log, _, _ = await written(store)
    await log.entries(entry(0, "a"), entry(1, "b"), open_epoch=True)  # revisions 1 to 3
    await log.withdraw(entry(3, "d"))  # 4, 5
    (before, gone, after) = encoded_changes(await pages_since(log, 1))
    assert [one.id for one in before.entries.logs] == [0]
    assert (gone.entry_withdrawn.id, gone.entry_withdrawn.epoch) == (1, 1)
    assert [one.id for one in after.entries.logs] == [3]
    assert encoded_changes(await pages_since(log, 5)) == []


async def test_a_page_ends_when_it_is_full_and_the_next_one_continues_there(store: Store) -> None:
    log, model, _ = await written(store)
    await log.entries(*many(25, size_bytes=100), open_epoch=True)
    await log.grow(24, "tail", keep_bytes=100)
    by_rows = await pages_since(log, 0, rows=10)
    assert [page.more for page in by_rows] == [True, True, False]
    by_bytes = await pages_since(log, 0, page_bytes=1000)
    assert [page.more for page in by_bytes] == [True, True, False]
    for pages in (by_rows, by_bytes):
        revisions = [one for message in encoded_changes(pages) for one in revisions_of(message)]
        assert revisions == model.revisions_after(0)


async def test_an_entry_larger_than_a_page_is_a_page_of_its_own(store: Store) -> None:
    log, _, _ = await written(store)
    await log.entries(*many(3, size_bytes=500), open_epoch=True)
    pages = await pages_since(log, 0, page_bytes=10)
    assert [len(page.changes) for page in pages] == [2, 1, 1]  # the first with the epoch


async def test_changes_include_earlier_epochs(store: Store) -> None:
    log, _, _ = await written(store)
    await log.entries(entry(0, "a"), open_epoch=True)  # revisions 1, 2
    await log.entries(entry(0, "b"), open_epoch=True)  # 3, 4
    messages = encoded_changes(await pages_since(log, 1))
    assert [one.WhichOneof("event") for one in messages] == ["entries", "epoch_started", "entries"]
    assert [one.entries.epoch for one in messages if one.HasField("entries")] == [1, 2]


@pytest.mark.parametrize(
    ("tail", "expected"),
    [(None, [3, 5, 6]), (0, []), (1, [6]), (2, [5, 6]), (9, [3, 5, 6]), (2**31 - 1, [3, 5, 6])],
)
async def test_the_last_entries_of_the_epoch_are_those_changed_after_the_start(
    store: Store, tail: int | None, expected: list[int]
) -> None:
    log, _, _ = await written(store)
    await log.entries(entry(0, "x"), entry(1, "y"), entry(2, "z"), open_epoch=True)
    await log.entries(entry(3, "a"), open_epoch=True)
    await log.entries(entry(5, "b"))
    await log.entries(entry(6, "c"))
    await log.grow(6, "d", keep_bytes=1)
    _, revision = await store.changes.start(TaskId(log.task_id), tail)
    messages = encoded_changes(await pages_since(log, revision))
    assert [one.id for message in messages for one in message.entries.logs] == expected


async def test_a_task_without_a_log_has_no_changes(store: Store) -> None:
    task_id = await new_task(store)
    task, revision = await store.changes.start(TaskId(task_id), None)
    assert (task.head.revision, revision) == (0, 0)
    read = await store.changes.since(task_id, 0)
    assert (read.changes, read.revision, read.more) == ([], 0, False)


async def test_a_deleted_task_is_not_found(store: Store) -> None:
    task_id = await new_task(store)
    await store.tasks.delete(task_id)
    with pytest.raises(TaskNotFound):
        await store.changes.since(task_id, 0)
    with pytest.raises(TaskNotFound):
        await store.changes.start(TaskId(task_id), None)


async def test_reads_beside_commits_see_whole_commits_only(store: Store) -> None:
    """I5: each commit adds two entries of one text; no read sees one without the other."""
    log, _, _ = await written(store)
    await log.entries(open_epoch=True)
    stop = asyncio.Event()

    async def write() -> None:
        for index in range(0, 120, 2):
            await log.entries(entry(index, str(index)), entry(index + 1, str(index)))
        stop.set()

    async def read() -> int:
        reads, view = 0, View(start=0)
        view.reconnect(expects_status=False)
        done = False
        while not done:
            done = stop.is_set()
            page = await store.changes.since(log.task_id, view.revision)
            for message in encoded_changes([page]):
                view.apply(message)
            contents = [content for _, content in sorted(view.contents().items())]
            assert contents[::2] == contents[1::2]
            reads += 1
        assert len(view.entries) == 120
        return reads

    _, *reads = await asyncio.gather(write(), read(), read())
    assert min(reads) > 1


@pytest.mark.parametrize("behind", [0, 1, 3, 500, 19_000])
async def test_a_page_of_a_long_log_reads_little_more_than_its_own_rows(
    store: Store, database: str, behind: int
) -> None:
    """This holds for a reader at any revision, so there is no scan of all later entries."""
    log, _, _ = await written(store)
    await log.entries(open_epoch=True)
    for first in range(0, 20_000, 5_000):
        await log.entries(*many(5_000, size_bytes=200, first=first))
    sql = await asyncpg.connect(database)
    try:
        since = (log.task_id, log.revision - behind, 10, 1_000_000, None)
        arguments = (*store.changes._lease_terms, *since)
        await sql.execute("SET plan_cache_mode = force_generic_plan")
        plan = await explain(sql, log_changes._CHANGES, *arguments)
    finally:
        await sql.close()
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 150
