"""Random logs and random breaks: whatever a server does, a follow yields the final log."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tasklogs import (
    CaughtUp,
    EntriesChanged,
    EntryWithdrawn,
    EpochStarted,
    ReconnectWaits,
    StatusChanged,
    TaskLogsClient,
    TaskStatus,
)
from tests.support.fakes.changing_log import Break, Change, ChangingLog
from tests.support.fakes.log_server import log_server
from tests.support.fixtures.conditions import DEADLINE_SECONDS

SOON = ReconnectWaits(first=timedelta(milliseconds=1), cap=timedelta(milliseconds=2))

CHANGES = st.lists(
    st.tuples(
        st.sampled_from([*Change, Change.APPEND, Change.GROW]),
        st.text(alphabet="aé漢😀\n", min_size=1, max_size=4),
        st.integers(0, 8),
    ),
    max_size=25,
)
BREAKS = st.lists(st.tuples(st.integers(0, 6), st.sampled_from(Break)), max_size=8)


@settings(deadline=None, max_examples=100)
@given(CHANGES, BREAKS)
async def test_a_follow_yields_the_whole_log_and_repeats_nothing(
    changes: list[tuple[Change, str, int]], breaks: list[tuple[int, Break]]
) -> None:
    played = ChangingLog(changes, breaks)
    view: dict[tuple[int, int], str] = {}
    revisions: list[int] = []
    statuses = caught = 0
    async with asyncio.timeout(DEADLINE_SECONDS), log_server() as server:
        server.play = played.play
        async with TaskLogsClient(server.address, reconnect_waits=SOON) as client:
            async for event in client.follow("local/demo"):
                match event:
                    case StatusChanged():
                        statuses += 1
                        if event.status is TaskStatus.PAUSED:
                            break
                    case CaughtUp():
                        caught += 1
                    case EpochStarted():
                        revisions.append(event.revision)
                    case EntryWithdrawn():
                        revisions.append(event.revision)
                        view.pop((event.epoch, event.id), None)
                    case EntriesChanged():
                        for change in event.changes:
                            each, key = change.entry, (event.epoch, change.entry.id)
                            was = view.get(key)
                            assert (change.replaces is None) == (was is None)
                            before = was or ""
                            assert each.content == played.log.history[each.revision].content
                            assert each.content[: change.kept] == before[: change.kept]
                            if change.appended is not None:
                                assert each.content == before + change.appended
                            revisions.append(each.revision)
                            view[key] = each.content

    assert revisions == sorted(set(revisions))
    assert (statuses, caught) == (2, 1)
    assert view == {key: each.content for key, each in played.log.entries.items()}
