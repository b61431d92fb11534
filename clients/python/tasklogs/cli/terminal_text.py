"""Text of strangers on a terminal: what would steer it is made visible instead.

An agent's output may hold sequences that move the cursor, retitle the window, fill the clipboard,
or reorder what is read (bidi controls).
"""

from __future__ import annotations

import os
import re
import sys

_C0_AND_C1 = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_BIDI_AND_SEPARATORS = r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
# A carriage return alone overwrites its line.
_STEERING = re.compile(rf"[{_C0_AND_C1}{_BIDI_AND_SEPARATORS}]|\r(?!\n)")
_BREAKING = re.compile(r"\s*[\r\n]+\s*|\t")
_JSON_LEAVES_RAW = re.compile(rf"[\x7f-\x9f{_BIDI_AND_SEPARATORS}]")


def visible(text: str) -> str:
    r"""`text` with each steering character written out (`\x1b`); newlines and tabs stay."""
    return _STEERING.sub(_written_out, text)


def one_line(text: str) -> str:
    """`text` made visible, on one line."""
    return visible(_BREAKING.sub(" ", text.strip()))


def safe_json(text: str) -> str:
    r"""JSON `text` with the characters that `json` leaves raw as `\uXXXX`: the same value."""
    return _JSON_LEAVES_RAW.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def colours_wanted() -> bool:
    """Whether stdout is a terminal that may be coloured (https://no-color.org)."""
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "") != "dumb"
    )


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
