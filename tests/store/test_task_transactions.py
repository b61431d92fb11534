"""Work that meets a held row: the time in line before does not count."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tasklogs_server.store.errors import row_held
from tasklogs_server.store.task_transactions import retry_while_held


async def test_the_wait_for_a_held_row_begins_when_it_is_found_held() -> None:
    tries = 0

    async def work() -> str:
        nonlocal tries
        tries += 1
        if tries > 1:
            return "done"
        await asyncio.sleep(0.02)  # in line, for longer than the wait
        raise row_held()

    assert await retry_while_held(work, wait=timedelta(milliseconds=10)) == "done"
