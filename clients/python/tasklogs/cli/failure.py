"""A command's failure: one line on stderr, exit 1."""

from __future__ import annotations

import sys

from tasklogs.cli.render.terminal_text import one_line


class CommandFailed(Exception):
    """The command failed for a reason that its user can do something about: say it in one line."""


def print_failure(message: str) -> None:
    """Print `message`, which may come from a server or a task app, as one line on stderr."""
    print_notice(one_line(message))


def print_notice(message: str) -> None:
    """Print a line that is not the command's result."""
    # What came to stdout before it shall stand before it.
    sys.stdout.flush()
    sys.stderr.write(f"tasklogs: {message}\n")
