"""The agent's own log: one line an event on stderr, never with any content of the conversation."""

from __future__ import annotations

import logging
import sys

import structlog

from tasklogs.visible import fields_in_one_line


def configure(*, level: int = logging.INFO) -> None:
    """Write lines from `level` on: readable on a terminal, JSON in a pipe."""
    is_terminal = sys.stderr.isatty()
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            # A server's words, a task app's. JSON escapes in its own way.
            *([fields_in_one_line] if is_terminal else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
