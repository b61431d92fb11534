"""What ends a follow of the soak, and what does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from tasklogs import EpochStarted, FollowEvent, TaskLogsClient
from tasklogs.errors import LimitExceeded, TaskLogsRpcError
from tests.system.soak.followers import Follower
from tests.system.soak.journal import Journal, read_journal

BUSY = LimitExceeded(
    code=grpc.StatusCode.RESOURCE_EXHAUSTED,
    message="the server is overloaded",
    reason="STORE_BUSY",
    retry_after=timedelta(milliseconds=1),
)
ENDED = LimitExceeded(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="no", reason="OTHER")
EVENT = EpochStarted(cursor="a cursor", epoch=1, revision=1)


class Client:
    """Its follows yield these events and raise these errors, one list for each."""

    def __init__(self, *follows: Sequence[FollowEvent | TaskLogsRpcError]) -> None:
        self._follows = list(follows)

    async def follow(self, *_: object, **__: object) -> AsyncIterator[FollowEvent]:
        for one in self._follows.pop(0):
            if isinstance(one, TaskLogsRpcError):
                raise one
            yield one


async def followed(tmp_path: Path, *follows: Sequence[Any]) -> list[str]:
    """Follow until the follow is over. Returns the kinds of the records."""
    journal = Journal(tmp_path / "followed.jsonl")
    client = cast("TaskLogsClient", Client(*follows))
    await Follower(journal).follow(client, "local/demo", deltas=True)
    journal.close()
    return [one["kind"] for one in read_journal(tmp_path / "followed.jsonl")]


async def test_a_follow_that_is_refused_at_first_begins_again(tmp_path: Path) -> None:
    kinds = await followed(tmp_path, [BUSY], [EVENT, ENDED])
    assert kinds == ["refused", "epoch", "end"]


@pytest.mark.parametrize("follow", [[ENDED], [EVENT, BUSY]])
async def test_a_follow_ends_where_no_retry_is_promised_or_after_its_first_event(
    tmp_path: Path, follow: Sequence[Any]
) -> None:
    assert (await followed(tmp_path, follow))[-1] == "end"
