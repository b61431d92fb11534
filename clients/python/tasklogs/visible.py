"""Escapes the characters of untrusted text that could steer a terminal.

An agent's output may contain sequences that move the cursor, change the window's title, fill the
clipboard, or reorder text (bidi controls).
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

_C0_AND_C1 = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
BIDI_AND_SEPARATORS = r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
# A lone surrogate cannot be encoded, so writing it would fail. A lone carriage return overwrites
# its line.
_STEERING = re.compile(rf"[{_C0_AND_C1}{BIDI_AND_SEPARATORS}\ud800-\udfff]|\r(?!\n)")
_WHITE = re.compile(r"[\t\n\r]")


def visible(text: str) -> str:
    r"""Return `text` with each control character escaped (`\x1b`), except newlines and tabs."""
    return _STEERING.sub(_written_out, text)


def in_one_line(text: str) -> str:
    r"""Return `text` with each control character escaped, also newlines and tabs (`\n`)."""
    return visible(_WHITE.sub(_named, text))


def fields_in_one_line(
    _: object, __: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Keep each field of a log event on one line. A structlog processor.

    It leaves out `exception`, because a traceback has several lines.
    """
    for name, value in line.items():
        if isinstance(value, str) and name != "exception":
            line[name] = in_one_line(value)
    return line


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _named(match: re.Match[str]) -> str:
    return {"\t": r"\t", "\n": r"\n", "\r": r"\r"}[match[0]]
