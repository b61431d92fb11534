"""Inputs that consist of several pieces. Two bytes before each piece are its length."""

from __future__ import annotations

from collections.abc import Iterable

_LENGTH_BYTES = 2


def split(data: bytes) -> list[bytes]:
    """Return the pieces. The last one may be shorter than its length says."""
    pieces = []
    offset = 0
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + _LENGTH_BYTES], "big")
        offset += _LENGTH_BYTES
        pieces.append(data[offset : offset + length])
        offset += length
    return pieces


def joined(pieces: Iterable[bytes]) -> bytes:
    """Return the input that splits into `pieces`."""
    return b"".join(len(piece).to_bytes(_LENGTH_BYTES, "big") + piece for piece in pieces)
