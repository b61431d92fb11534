"""What every bus offers: notes within this process, and to and from other processes."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol, TypeAlias
from uuid import UUID

from tasklogs_server.bus.notes import DirectNote, HeardNote, Note


class PeerEvent(Enum):
    """What happened to another process, or to the way to it."""

    JOINED = auto()
    """It is reached now."""
    LEFT = auto()
    """It has ended in order: it told others all that it had to tell."""
    MOVED = auto()
    """So many tasks changed there that it does not name them."""
    MISSED = auto()
    """It misses notes of this process, and knows that."""
    GAP = auto()
    """Notes of it, or to it, may be lost."""


PeerListener: TypeAlias = Callable[[UUID | None, PeerEvent], None]
"""Called with the process; None: any process."""


class Bus(Protocol):
    """Passes notes on. No method waits. A listener must not wait, and must not raise."""

    def listen(self, listener: Callable[[Note], None]) -> None:
        """Call `listener` with every note of this process from now on."""

    def hear(self, listener: Callable[[UUID, HeardNote], None]) -> None:
        """Call `listener` with the sender and every note of another process that arrives."""

    def watch(self, listener: PeerListener) -> None:
        """Call `listener` with what happens to other processes."""

    def publish(self, note: Note) -> None:
        """Tell the listeners of this process now, and the processes that it concerns soon."""

    def send(self, process_id: UUID, note: DirectNote) -> None:
        """Tell one other process soon."""

    def reaches(self, process_id: UUID) -> bool:
        """Whether this is another process that was heard lately."""

    def follow(self, task_id: UUID) -> None:
        """Ask for the Moved notes of a task, until `unfollow`."""

    def unfollow(self, task_id: UUID) -> None:
        """Ask for no more notes of a task."""
