"""Text that is safe to print on a terminal."""

from __future__ import annotations

import os
import re
import sys

from tasklogs.visible import BIDI_AND_SEPARATORS
from tasklogs.visible import visible as visible

_BREAK = re.compile(r"[\t\n\r]+")
_JSON_LEAVES_RAW = re.compile(rf"[\x7f-\x9f{BIDI_AND_SEPARATORS}]")


def one_line(text: str) -> str:
    """Return `text` on one line, with control characters escaped."""
    parts = (part.strip() for part in _BREAK.split(text))
    return visible(" ".join(part for part in parts if part))


def safe_json(text: str) -> str:
    r"""Return JSON `text` with the control characters that `json` leaves raw as `\uXXXX`."""
    return _JSON_LEAVES_RAW.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def colours_wanted() -> bool:
    """Whether stdout is a terminal that may show colours (https://no-color.org)."""
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "") != "dumb"
    )
