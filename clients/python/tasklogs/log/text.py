"""From text as a task app gives it to the bytes that are hashed, sent and stored."""

from __future__ import annotations

import re

_SURROGATES = re.compile("[\ud800-\udfff]")


def to_utf8(text: str) -> bytes:
    """Encode `text`; lone surrogates, which UTF-8 cannot hold, become U+FFFD.

    All else stays as it is.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode()


def is_boundary(content: bytes | bytearray, position: int) -> bool:
    """Whether `position` lies on a code-point boundary of `content`, its two ends included."""
    if position == len(content):
        return True
    return 0 <= position < len(content) and content[position] & 0xC0 != 0x80
