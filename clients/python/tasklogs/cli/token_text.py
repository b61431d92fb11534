"""Reads a token from a file, and refuses early what cannot be one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import typer

from tasklogs.cli.failure import CommandFailed
from tasklogs.connection.limits import MAX_TOKEN_BYTES

STANDARD_INPUT = Path("-")
# The file may be the wrong one. With white space around it, a token may have the full length.
_MAX_CHARACTERS = MAX_TOKEN_BYTES + 1024


def read_token(file: Path) -> str:
    """Return the token in `file` ('-': stdin, one line). Raises CommandFailed, BadParameter."""
    try:
        if file == STANDARD_INPUT:
            token = sys.stdin.readline(_MAX_CHARACTERS)
        else:
            with file.open(encoding="utf-8") as opened:
                token = opened.read(_MAX_CHARACTERS)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise CommandFailed(f"cannot read the token from {file}: {reason}") from None
    return checked_token(token.strip(), str(file))


def rereading(file: Path | None) -> Callable[[], str | None] | None:
    """Return a function that reads the token again later. None if there is no file to read."""
    if file is None or file == STANDARD_INPUT:
        return None

    def read() -> str | None:
        try:
            return read_token(file)
        except (CommandFailed, typer.BadParameter):
            return None  # it may be being written at this moment

    return read


def checked_token(token: str, origin: str) -> str:
    """Return `token`, which may be empty. Raises BadParameter if no server takes it."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise typer.BadParameter(
            f"{origin} has characters that no token has:"
            " it must be the token alone, on one line, without `Bearer`"
        )
    if len(token) > MAX_TOKEN_BYTES:
        raise typer.BadParameter(
            f"{origin} has a token of more than {MAX_TOKEN_BYTES} bytes, which servers refuse"
        )
    return token
