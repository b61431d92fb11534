"""Confirmed times without a commit: each is kept until it is written, and written once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID, uuid4

import pytest

from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.ingest.write_behind import WriteBehind
from tasklogs_server.store.generations import Generations
from tasklogs_server.store.log_writes import LogWrites

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=1)
A, B = uuid4(), uuid4()


class Writes:
    """Records the times that it is given to write."""

    def __init__(self) -> None:
        self.confirmed: list[tuple[UUID, int, datetime]] = []
        self.is_away = False
        self.held: Collection[UUID] = ()

    async def confirm(
        self, confirmed: Sequence[tuple[UUID, int, datetime]], *, generation: str
    ) -> Collection[UUID]:
        if self.is_away:
            raise StoreUnavailable(timedelta(seconds=1))
        self.confirmed += [one for one in confirmed if one[0] not in self.held]
        return self.held


@pytest.fixture
def writes() -> Writes:
    return Writes()


@pytest.fixture
def generations() -> Generations:
    return Generations()


@pytest.fixture
def write_behind(writes: Writes, generations: Generations) -> WriteBehind:
    return WriteBehind(cast("LogWrites", writes), generations)


async def test_a_time_is_written_once(write_behind: WriteBehind, writes: Writes) -> None:
    write_behind.confirm(A, "", 1, NOON, is_persisted=False)
    for _ in range(2):
        await write_behind.persist_all(open_tasks={A})
    assert writes.confirmed == [(A, 1, NOON)]
    assert write_behind.confirmed_at(A, 0) == NOON


async def test_an_earlier_time_changes_nothing(write_behind: WriteBehind, writes: Writes) -> None:
    write_behind.confirm(A, "", 1, LATER, is_persisted=False)
    write_behind.confirm(A, "", 2, NOON, is_persisted=True)
    assert write_behind.confirmed_at(A, 0) == LATER
    await write_behind.persist_all(open_tasks={A})
    assert writes.confirmed == [(A, 1, LATER)]


async def test_what_a_commit_has_stored_is_not_written_again(
    write_behind: WriteBehind, writes: Writes
) -> None:
    write_behind.confirm(A, "", 1, NOON, is_persisted=False)
    write_behind.confirm(A, "", 1, LATER, is_persisted=True)
    await write_behind.persist_all(open_tasks={A})
    assert writes.confirmed == []


async def test_one_task_is_written_alone(write_behind: WriteBehind, writes: Writes) -> None:
    write_behind.confirm(A, "", 1, NOON, is_persisted=False)
    write_behind.confirm(B, "", 7, LATER, is_persisted=False)
    await write_behind.persist(B)
    assert writes.confirmed == [(B, 7, LATER)]
    await write_behind.persist(uuid4())


async def test_a_time_that_could_not_be_written_is_kept_even_without_a_session(
    write_behind: WriteBehind, writes: Writes
) -> None:
    write_behind.confirm(A, "", 1, NOON, is_persisted=False)
    writes.is_away = True
    with pytest.raises(StoreUnavailable):
        await write_behind.persist_all(open_tasks=())
    assert write_behind.confirmed_at(A, 0) == NOON
    writes.is_away = False
    await write_behind.persist_all(open_tasks=())
    assert writes.confirmed == [(A, 1, NOON)]
    assert write_behind.confirmed_at(A, 0) is None


async def test_a_time_of_a_former_generation_is_neither_kept_nor_written(
    write_behind: WriteBehind, writes: Writes, generations: Generations
) -> None:
    generations.observe("7/00000001")
    write_behind.confirm(A, "7/00000001", 1, NOON, is_persisted=False)
    generations.observe("7/00000002")
    assert write_behind.confirmed_at(A, 0) is None
    write_behind.confirm(A, "7/00000001", 1, NOON, is_persisted=False)  # its sync ended late
    await write_behind.persist_all(open_tasks={A})
    assert (write_behind.confirmed_at(A, 0), writes.confirmed) == (None, [])
    write_behind.confirm(A, "7/00000002", 1, LATER, is_persisted=False)
    assert write_behind.confirmed_at(A, 0) == LATER


async def test_a_time_of_a_held_task_is_kept_and_the_others_are_written(
    write_behind: WriteBehind, writes: Writes
) -> None:
    write_behind.confirm(A, "", 1, NOON, is_persisted=False)
    write_behind.confirm(B, "", 1, NOON, is_persisted=False)
    writes.held = {A}
    await write_behind.persist_all(open_tasks=())
    assert writes.confirmed == [(B, 1, NOON)]
    assert write_behind.confirmed_at(A, 0) == NOON
    writes.held = ()
    await write_behind.persist_all(open_tasks=())
    assert writes.confirmed == [(B, 1, NOON), (A, 1, NOON)]
    assert write_behind.confirmed_at(A, 0) is None


async def test_a_time_is_not_said_of_a_store_that_is_behind_it(
    write_behind: WriteBehind, writes: Writes
) -> None:
    write_behind.confirm(A, "", 1, NOON, is_persisted=False, revision=7)
    assert write_behind.confirmed_at(A, 7) == NOON
    assert write_behind.confirmed_at(A, 6) is None
    write_behind.forget(A)
    await write_behind.persist_all(open_tasks={A})
    assert writes.confirmed == []
