"""How the server writes its own log: structured, on stderr.

Content, prompts and tokens never get into it. So no line has the text of an exception, which may
quote what was being handled (asyncpg quotes rows and arguments, a KeyError its key). Types, files
and lines find the bug.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Literal

import structlog
from structlog.types import EventDict

from tasklogs.visible import fields_in_one_line
from tasklogs_server.telemetry.calls import with_call

_MESSAGE_CHARACTERS = 500


def _no_error(_: BaseException | None) -> bool:
    return False


def configure(
    log_format: Literal["console", "json"],
    log_level: str,
    *,
    is_ignored: Callable[[BaseException | None], bool] = _no_error,
) -> None:
    """Set up structlog for this process, and what libraries log through `logging`.

    `is_ignored` says of an exception that a library logs whether its line is left out.
    """
    colors = log_format == "console" and sys.stderr.isatty()
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        # structlog's default where Rich is installed prints the local variables of every frame.
        else structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback
        )
    )
    processors: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        with_call,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_exception_text,
    ]
    if log_format == "console":  # JSON has its own escapes
        processors.append(fields_in_one_line)
    level = logging.getLevelNamesMapping()[log_level.upper()]
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Warnings and errors of libraries alone. A program that runs the server in its own process and
    # has set up `logging` keeps its handlers: `basicConfig` does nothing then.
    handler = _LibraryLog(is_ignored)
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING))


def traceback_of(error: BaseException) -> str:
    """Return the frames and types of `error` and its causes, without texts; first cause first."""
    return "\n\n".join(reversed(list(_chain(error))))


def _chain(error: BaseException | None) -> Iterator[str]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = "".join(traceback.format_tb(error.__traceback__))
        yield f"Traceback (most recent call last):\n{frames}{_name(error)}"
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from _chain(one)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _name(error: BaseException) -> str:
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _without_exception_text(_: object, __: str, line: EventDict) -> EventDict:
    """Replace a line's exception by where it came from: a structlog processor."""
    told = line.pop("exc_info", None)
    error = told if isinstance(told, BaseException) else sys.exc_info()[1] if told else None
    if error is not None:
        line["exception"] = traceback_of(error)
    return line


class _LibraryLog(logging.Handler):
    """Writes a library's record as a line like all others, without the text of its exception.

    Without a handler Python prints that text as it is. It may quote what was being handled: asyncio
    puts the exception of a lost task into its message.
    """

    def __init__(self, is_ignored: Callable[[BaseException | None], bool]) -> None:
        super().__init__()
        self._is_ignored = is_ignored
        self._log = structlog.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record: the first line of its message, up to 500 characters."""
        error = record.exc_info[1] if record.exc_info else None
        if self._is_ignored(error):
            return
        message = record.getMessage().partition("\n")[0][:_MESSAGE_CHARACTERS]
        if record.name == "asyncio":
            message = message.partition("(")[0]  # the arguments of a callback follow
        fields = {"logger": record.name, "message": message}
        if error is not None:
            fields["exception"] = traceback_of(error)
        self._log.log(record.levelno, "library.logged", **fields)
