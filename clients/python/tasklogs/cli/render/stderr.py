"""What is not the command's result: notices and failures, line by line."""

from __future__ import annotations

import sys
from contextlib import suppress
from io import StringIO
from typing import IO, Any, Protocol

from tasklogs.cli.render.terminal_text import name_in_one_line, visible_name


class UsageError(Protocol):
    """An error of Click, which knows the usage of the command."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error on `file`."""


def print_usage_error(error: UsageError) -> None:
    """Print `error`. Click itself prints arguments as they are."""
    text = StringIO()
    error.show(text)
    write("\n".join(map(visible_name, without_prefix(text.getvalue()).split("\n"))))


def without_prefix(message: str) -> str:
    """Return `message` without the words that pydantic puts before the reason of a validator.

    Typer converts the values of options with pydantic.
    """
    return message.replace(": Value error, ", ": ", 1)


def print_failure(message: str) -> None:
    """Print why the command failed, as one line on stderr."""
    print_notice(message)


def print_notice(message: str) -> None:
    """Print a line that is not the command's result.

    It is escaped like a name, because it may quote arguments, a server or a task app.
    """
    write(f"tasklogs: {name_in_one_line(message)}\n")


def write(text: str) -> None:
    """Write `text` as it is. Never fails for stderr: the command's result matters more."""
    # What was written to stdout before must appear before it.
    sys.stdout.flush()
    with suppress(OSError):
        sys.stderr.write(text)
