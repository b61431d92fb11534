"""Where the session of a task is, if another process has it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Holder:
    """Another process, and the fence of the session that it has."""

    process: UUID
    fence: int
