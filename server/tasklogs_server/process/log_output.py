"""How the server writes its own log: structured, on stderr. Content and tokens never get here."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Literal

import structlog
from structlog.types import EventDict

from tasklogs.visible import fields_in_one_line
from tasklogs_server.process.tracebacks import traceback_of
from tasklogs_server.telemetry.calls import with_call

_MESSAGE_CHARACTERS = 500


def configure(
    log_format: Literal["console", "json"],
    log_level: str,
    *,
    is_ignored: Callable[[BaseException], bool] = lambda _: False,
) -> None:
    """Set up structlog for this process, and what libraries log through `logging`.

    A library's record is dropped if it reports an error that `is_ignored`.
    """
    colors = log_format == "console" and sys.stderr.isatty()
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        # Not its default where Rich is installed: that prints every frame's local variables.
        else structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback
        )
    )
    processors: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        with_call,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_words,
    ]
    if log_format == "console":  # JSON escapes in its own way
        processors.append(fields_in_one_line)
    level = logging.getLevelNamesMapping()[log_level.upper()]
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries say what goes wrong; what they do is nobody's concern here. Whoever runs the server
    # in a process of theirs, and has handlers, keeps those.
    logging.basicConfig(handlers=[_OfLibraries(is_ignored)], level=max(level, logging.WARNING))


def _without_words(_: object, __: str, line: EventDict) -> EventDict:
    """Say where an exception comes from, and not what it says."""
    told = line.pop("exc_info", None)
    error = told if isinstance(told, BaseException) else sys.exc_info()[1] if told else None
    if error is not None:
        line["exception"] = traceback_of(error)
    return line


class _OfLibraries(logging.Handler):
    """Writes a library's record as a line like all others, without what an exception says.

    Python's last resort would print that as it is, and it may quote what was being handled: asyncio
    puts the exception of a lost task into its message.
    """

    def __init__(self, is_ignored: Callable[[BaseException], bool]) -> None:
        super().__init__()
        self._is_ignored = is_ignored
        self._log = structlog.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        event = record.getMessage().partition("\n")[0][:_MESSAGE_CHARACTERS]
        if record.name == "asyncio":
            event = event.partition("(")[0]  # a callback's arguments follow
        fields = {"logger": record.name}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            if self._is_ignored(error):
                return
            fields["exception"] = traceback_of(error)
        self._log.log(record.levelno, event, **fields)
