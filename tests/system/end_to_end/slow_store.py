"""`tasklogs serve` with a store whose commits are slow. Reads are as fast as ever.

python -m tests.system.end_to_end.slow_store 0.2 serve --listen ...
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from uuid import UUID

from tasklogs.cli.main import main
from tasklogs_server.store.log_writes import Lane, LogWrites, Outcome
from tasklogs_server.store.records import Commit


def slow_down(seconds: float) -> None:
    """Make every batch that this process commits take this much longer."""
    commit = LogWrites.commit

    async def commit_slowly(
        self: LogWrites, commits: Sequence[Commit], lane: Lane = Lane.BATCHES
    ) -> Mapping[UUID, Outcome]:
        await asyncio.sleep(seconds)
        return await commit(self, commits, lane)

    LogWrites.commit = commit_slowly  # type: ignore[method-assign]


if __name__ == "__main__":
    slow_down(float(sys.argv.pop(1)))
    main()
