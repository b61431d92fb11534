"""A change's number inside its text, so that a follower can find it without decoding."""

from __future__ import annotations

_MARK = b"seq="
_DIGITS = 8


def stamp(number: int) -> str:
    """Return text that `number_in` finds."""
    return f"{_MARK.decode()}{number:0{_DIGITS}}\n"


def number_in(message: bytes) -> int | None:
    """Return the number of the last stamp in an encoded message. None: there is no stamp."""
    found = message.rfind(_MARK)
    if found < 0:
        return None
    begin = found + len(_MARK)
    return int(message[begin : begin + _DIGITS])
