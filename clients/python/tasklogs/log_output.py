"""How the server and the agent write their own logs: one event per line, on stderr.

The text of an exception is never written: it may quote the content of an entry.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from structlog.types import EventDict, Processor

from tasklogs.log_writer import LogWriter
from tasklogs.tracebacks import traceback_of
from tasklogs.visible import fields_in_one_line

LogFormat = Literal["console", "json"]


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One kind of line, for the documentation.

    Every line has `timestamp` and `level` beside its `fields`. A line of the server that a call
    caused also has `request_id`, and `task` if the call is about one.
    """

    name: str
    """`noun.verb`."""
    level: Literal["debug", "info", "warning", "error"]
    fields: Sequence[str]
    meaning: str
    """What it means, and what to do."""


LIBRARY_LOGGED = LogEvent(
    "library.logged",
    "warning",
    ("logger", "message", "exception"),
    "A library logged a warning or an error. The line has the library's level.",
)
RECORDS_LOST = LogEvent(
    "records.lost",
    "warning",
    ("count", "reason"),
    "So many records of this log could not be written, because its reader was away or stood still,"
    " or the disk was full. The program went on. `reason`: why the last of them was lost.",
)
_MESSAGE_CHARACTERS = 500


def configure(
    log_format: LogFormat,
    log_level: str,
    *,
    context: Sequence[Processor] = (),
    is_ignored: Callable[[BaseException], bool] = lambda _: False,
) -> None:
    """Set up structlog for this process, and what libraries log through `logging`.

    `context` adds fields to each line. A library's record is dropped if it reports an error that
    `is_ignored`.
    """
    colors = log_format == "console" and sys.stderr is not None and sys.stderr.isatty()
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        # Where Rich is installed, structlog's default prints the local variables of each frame.
        else structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback
        )
    )
    processors: list[Processor] = [
        *context,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_words,
    ]
    if log_format == "console":  # JSON has escapes of its own, and null
        processors += [_without_none, fields_in_one_line]
    level = logging.getLevelNamesMapping()[log_level.upper()]
    processors.append(renderer)
    writer = _set_writer(processors)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # One write for a line. Workers share stderr: with two writes, their lines would mix.
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )
    # Only warnings and errors of libraries matter here. A program that embeds this one and has set
    # up its own handlers keeps them.
    handler = _LibraryHandler(is_ignored)
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING))


def flush() -> None:
    """Wait until all lines are written, or lost; at most a second."""
    if _writer is not None:
        _writer.flush()


def write_lines(lines: Sequence[str]) -> None:
    """Write lines that are formatted already."""
    writer = _writer
    if writer is None or writer.stream is not sys.stderr:
        writer = _set_writer([structlog.processors.LogfmtRenderer()])
    writer.write_all(lines)


_writer: LogWriter | None = None
"""That of this process, as structlog has one configuration."""


def _set_writer(processors: Sequence[Processor]) -> LogWriter:
    def tell_of_lost(count: int, reason: str) -> str:
        line: Any = {"event": RECORDS_LOST.name, "count": count, "reason": reason}
        for process in processors:
            line = process(None, RECORDS_LOST.level, line)
        return str(line)

    global _writer
    _writer = LogWriter(sys.stderr, tell_of_lost)
    return _writer


def _without_words(_: object, __: str, line: EventDict) -> EventDict:
    """Write where an exception comes from, and not what it says."""
    told = line.pop("exc_info", None)
    error = told if isinstance(told, BaseException) else sys.exc_info()[1] if told else None
    if error is not None:
        line["exception"] = traceback_of(error)
    return line


def _without_none(_: object, __: str, line: EventDict) -> EventDict:
    return {name: value for name, value in line.items() if value is not None}


class _LibraryHandler(logging.Handler):
    """Writes a library's record as a line like all others, without what an exception says.

    Python's default handler would print that text. asyncio, for instance, puts the exception of a
    lost task into its message.
    """

    def __init__(self, is_ignored: Callable[[BaseException], bool]) -> None:
        super().__init__()
        self._is_ignored = is_ignored
        self._log = structlog.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        message = record.getMessage().partition("\n")[0][:_MESSAGE_CHARACTERS]
        if record.name == "asyncio":
            message = message.partition("(")[0]  # a callback's arguments follow
        fields = {"logger": record.name, "message": message}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            if self._is_ignored(error):
                return
            fields["exception"] = traceback_of(error)
        self._log.log(record.levelno, LIBRARY_LOGGED.name, **fields)
