"""The bus of a single process: `publish` calls the listeners."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from tasklogs_server.bus.interface import PeerListener
from tasklogs_server.bus.notes import DirectNote, HeardNote, Note


class LocalBus:
    """Passes notes on at once. There is no other process."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Note], None]] = []

    def listen(self, listener: Callable[[Note], None]) -> None:
        """Call `listener` with every note from now on."""
        self._listeners.append(listener)

    def publish(self, note: Note) -> None:
        """Call all listeners, in the order in which they registered."""
        for listener in self._listeners:
            listener(note)

    def hear(self, listener: Callable[[UUID, HeardNote], None]) -> None:
        """Do nothing: no other process is heard."""

    def watch(self, listener: PeerListener) -> None:
        """Do nothing: no note is lost."""

    def send(self, process_id: UUID, note: DirectNote) -> None:
        """Do nothing: no other process hears it."""

    def reaches(self, process_id: UUID) -> bool:
        """Whether there is this other process: never."""
        return False

    def follow(self, task_id: UUID) -> None:
        """Do nothing: all notes are of this process."""

    def unfollow(self, task_id: UUID) -> None:
        """Do nothing, as `follow`."""
