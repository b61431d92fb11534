"""Encodes a task app's text into the bytes that are hashed, sent and stored."""

from __future__ import annotations

import re

_SURROGATES = re.compile("[\ud800-\udfff]")


def to_utf8(text: str) -> bytes:
    """Encode `text`. Lone surrogates, which UTF-8 cannot encode, become U+FFFD.

    Everything else stays unchanged.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode()


def is_boundary(content: bytes | bytearray, position: int) -> bool:
    """Whether `position` is a code-point boundary of `content`. Both ends are boundaries."""
    if position == len(content):
        return True
    return 0 <= position < len(content) and content[position] & 0xC0 != 0x80


def boundary_before(content: bytes | bytearray, position: int) -> int:
    """Return the last code-point boundary of `content` up to `position`, which is at least 0."""
    position = min(position, len(content))
    while not is_boundary(content, position):
        position -= 1
    return position
