"""Writes the command's result to stdout, unchanged.

`typer.echo` is not used: in a pipe it would remove an agent's escape sequences from the log.
"""

from __future__ import annotations

import sys


def write(text: str) -> None:
    """Write `text` without a line end."""
    sys.stdout.write(text)


def write_line(text: str) -> None:
    """Write `text` and end the line."""
    sys.stdout.write(f"{text}\n")
