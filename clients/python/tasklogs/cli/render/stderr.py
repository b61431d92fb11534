"""What is not the command's result: notices and failures, line by line."""

from __future__ import annotations

import sys

from tasklogs.cli.render.terminal_text import one_line


def print_failure(message: str) -> None:
    """Print `message`, which may come from a server or a task app, as one line on stderr."""
    print_notice(one_line(message))


def print_notice(message: str) -> None:
    """Print a line that is not the command's result."""
    # What was written to stdout before must appear before it.
    sys.stdout.flush()
    sys.stderr.write(f"tasklogs: {message}\n")
