"""Where the events of a stream are logged: structlog where the program uses it, else `logging`.

Structlog prints to stdout until it is configured. A program that only publishes must not find lines
of this library among its own output.
"""

from __future__ import annotations

import logging
from contextlib import suppress

import structlog

_LOGGER = logging.getLogger("tasklogs")


class EventLog:
    """Logs events with fields, as a structlog logger does."""

    def info(self, event: str, **fields: object) -> None:
        """Log something that is expected."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log something that an operator may want to change."""
        self._write(logging.WARNING, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if structlog.is_configured():
            # As with `logging`: what the program does with the record must not end the stream.
            with suppress(Exception):
                structlog.get_logger("tasklogs").log(level, event, **fields)
        elif _LOGGER.isEnabledFor(level):
            written = " ".join(f"{name}={value!r}" for name, value in fields.items())
            _LOGGER.log(level, "%s %s", event, written)
