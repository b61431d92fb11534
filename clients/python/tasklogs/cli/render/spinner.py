"""A spinner on stderr, for calls that take longer than a second."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tasklogs.cli.render.terminal_text import visible_name

if TYPE_CHECKING:
    from rich.status import Status


class Spinner:
    """Shows a message while it runs. It shows nothing if stderr is not a terminal."""

    def __init__(self, message: str) -> None:
        self._message = visible_name(message)
        self._status: Status | None = None

    def start(self) -> None:
        """Start to spin in a thread of its own. Does nothing if it already spins."""
        if self._status is not None or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.text import Text

        self._status = Console(stderr=True).status(Text(self._message))
        self._status.start()

    def say(self, message: str) -> None:
        """Show another message."""
        self._message = visible_name(message)
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(self._message))

    def stop(self) -> None:
        """Stop and erase the spinner. Does nothing if it does not spin."""
        if self._status is not None:
            self._status.stop()
            self._status = None
