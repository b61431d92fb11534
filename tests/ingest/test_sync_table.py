"""The syncs of a session. They are done when the appends before the answer are committed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tasklogs_server.domain.errors import TaskAppFailed
from tasklogs_server.domain.synced import Synced
from tasklogs_server.ingest.sync_table import SyncTable

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def test_a_sync_is_done_when_the_last_append_before_its_answer_is_committed() -> None:
    syncs = SyncTable()
    first, second = syncs.begin(), syncs.begin()
    syncs.answered(first.id, rests_on=3, acked=2)
    assert not first.done.done()
    syncs.acked(3)
    assert first.done.done()
    assert not second.done.done(), "it has no answer yet"
    syncs.answered(second.id, rests_on=3, acked=3)
    assert second.done.done()


async def test_answers_of_unknown_or_settled_syncs_change_nothing() -> None:
    syncs = SyncTable()
    left = syncs.begin()
    syncs.forget(left.id)
    syncs.answered(left.id, rests_on=0, acked=0)
    syncs.failed(left.id, TaskAppFailed("no"))
    assert not left.done.done()
    settled = syncs.begin()
    syncs.failed(settled.id, TaskAppFailed("first"))
    syncs.failed(settled.id, TaskAppFailed("second"))
    syncs.answered(settled.id, rests_on=0, acked=0)
    with pytest.raises(TaskAppFailed) as failed:
        await settled.done
    assert failed.value.reason == "first"


async def test_all_syncs_fail_together() -> None:
    syncs = SyncTable()
    under_way = [syncs.begin() for _ in range(2)]
    syncs.fail_all(TaskAppFailed("gone"))
    for one in under_way:
        with pytest.raises(TaskAppFailed):
            await one.done


async def test_the_last_completed_sync_never_moves_back() -> None:
    syncs = SyncTable()
    assert (syncs.last, syncs.last_began) == (None, None)
    syncs.completed(Synced(NOON, fence=1, revision=3), 100.0)
    # The wall clock was set back.
    syncs.completed(Synced(NOON - timedelta(hours=1), fence=1, revision=5), 101.0)
    assert (syncs.last, syncs.last_began) == (Synced(NOON, fence=1, revision=5), 101.0)
    # It began before the one above.
    syncs.completed(Synced(NOON + timedelta(seconds=1), fence=1, revision=7), 99.0)
    assert (syncs.last, syncs.last_began) == (Synced(NOON, fence=1, revision=5), 101.0)
