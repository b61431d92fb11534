"""Text that is safe to print on a terminal."""

from __future__ import annotations

import os
import re
import sys

from tasklogs.visible import CONTEXT, undecided, visible, visible_name
from tasklogs.visible import json_escaped as safe_json

__all__ = [
    "BOLD",
    "CONTEXT",
    "DIM",
    "PLAIN",
    "colours_wanted",
    "name_in_one_line",
    "one_line",
    "safe_json",
    "undecided",
    "visible",
    "visible_name",
]

BOLD, DIM, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_BREAK = re.compile(r"[\t\n\r]+")


def one_line(text: str) -> str:
    """Return `text` on one line, with control characters and hidden characters escaped.

    For a name (of a task, an owner, a file), use `visible_name`, which lets less through.
    """
    return visible(_joined(text))


def name_in_one_line(text: str) -> str:
    """Return `text` on one line, escaped like a name: for lines that quote names."""
    return visible_name(_joined(text))


def _joined(text: str) -> str:
    parts = (part.strip() for part in _BREAK.split(text))
    return " ".join(part for part in parts if part)


def colours_wanted() -> bool:
    """Whether stdout is a terminal that may show colours (https://no-color.org)."""
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "") != "dumb"
    )
