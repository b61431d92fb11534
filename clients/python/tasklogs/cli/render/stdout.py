"""The command's result, line by line, as it is.

Not `typer.echo`: in a pipe it would take an agent's own escape sequences out of the log.
"""

from __future__ import annotations

import sys


def write(text: str) -> None:
    """Write `text` without a line end."""
    sys.stdout.write(text)


def write_line(text: str) -> None:
    """Write `text` and end the line."""
    sys.stdout.write(f"{text}\n")
