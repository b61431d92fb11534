"""A short run of the random readers, and the proof that they notice what they must notice."""

from __future__ import annotations

import pytest

from tasklogs import EntriesChanged, EntryChange, LogEntry
from tasklogs.enums import TaskLogType
from tests.system.readers.async_readers import read_at_random
from tests.system.readers.growing_log import Seen, content_of, growing_log


@pytest.mark.parametrize("seed", range(2))
async def test_readers_that_do_anything_lose_nothing_and_see_nothing_twice(
    database: str, seed: int
) -> None:
    async with growing_log(database, seed) as log:
        seen = await read_at_random(log, seed, readers=3, seconds=3)

    assert log.entries > 0
    assert log.network.cuts > 0
    assert all(one.events > 0 and one.counts["deleted"] == 1 for one in seen)


def _changed(entry_id: int, revision: int, content: str | None = None) -> EntriesChanged:
    entry = LogEntry(
        id=entry_id,
        type=TaskLogType.OUTPUT,
        time_ns=0,
        content=content_of(entry_id) if content is None else content,
        revision=revision,
    )
    change = EntryChange(entry=entry, appended=entry.content)
    return EntriesChanged(cursor=f"c{revision}", epoch=1, changes=(change,))


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([_changed(0, 1), _changed(0, 1)], "came twice"),
        ([_changed(0, 1), _changed(2, 3)], "2 came after 0"),
        ([_changed(0, 1, "entry 0\n"), _changed(1, 2)], "0 lacks"),
    ],
    ids=["repeated", "lost", "incomplete"],
)
def test_a_reader_notices(events: list[EntriesChanged], said: str) -> None:
    seen = Seen()
    *right, wrong = events
    for event in right:
        seen.take(event)
    with pytest.raises(AssertionError, match=said):
        seen.take(wrong)
