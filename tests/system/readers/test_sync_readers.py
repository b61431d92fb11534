"""A short run of the random reader without asyncio."""

from __future__ import annotations

from tests.system.readers.sync_readers import log_in_a_thread, read_without_asyncio


def test_a_reader_without_asyncio_that_does_anything_loses_nothing_and_sees_nothing_twice(
    database: str,
) -> None:
    with log_in_a_thread(database, 0) as log:
        reader = read_without_asyncio(log, seed=0, seconds=4)

    assert log.log.entries > 0
    assert log.log.network.cuts > 0
    assert reader.alarms.raised > 0
    assert reader.seen.events > 0
    assert reader.seen.counts["deleted"] == 1
