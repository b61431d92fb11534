"""How the server writes its own log: structured, on stderr. Content and tokens never get here."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from tasklogs_server.telemetry.calls import with_call


def configure(log_format: Literal["console", "json"], log_level: str) -> None:
    """Set up structlog for this process."""
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
    ]
    if log_format == "json":
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[log_level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
