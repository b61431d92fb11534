"""The bus of a single process: `publish` calls the listeners."""

from __future__ import annotations

from collections.abc import Callable

from tasklogs_server.bus.notes import Note


class LocalBus:
    """Passes notes on at once. A listener must not wait and must not raise."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Note], None]] = []

    def listen(self, listener: Callable[[Note], None]) -> None:
        """Call `listener` with every note from now on."""
        self._listeners.append(listener)

    def publish(self, note: Note) -> None:
        """Call all listeners, in the order in which they registered."""
        for listener in self._listeners:
            listener(note)
