"""What a live read rests on: a completed sync, and the task's rows that still name its session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class StoredState(NamedTuple):
    """What a task's rows say. `start_build` is the latest build's number, if it is a START.

    `process`: the server process whose session they name. None: none, or it was lost.
    """

    fence: int
    revision: int
    start_build: int | None
    process: UUID | None = None


@dataclass(frozen=True, slots=True)
class Synced:
    """A completed sync: when it began, its session, and the log's revision after it.

    `build_number` is the build that the session is bound to. None: it follows the latest one.
    """

    began_at: datetime
    fence: int
    revision: int
    build_number: int | None = None

    def is_held_by(self, stored: StoredState) -> bool:
        """Whether a read that found `stored` after the sync may be answered as live.

        Another process may have ended the session, or the store may have gone back in time.
        """
        return (
            stored.fence == self.fence
            and stored.revision >= self.revision
            and not is_older_build(self.build_number, stored.start_build)
        )


def is_older_build(build_number: int | None, start_build: int | None) -> bool:
    """Whether a START build has come that is newer than a session's."""
    return build_number is not None and start_build is not None and start_build > build_number
