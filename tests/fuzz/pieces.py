"""Inputs that are made of several: each piece with its length before it, two bytes."""

from __future__ import annotations

from collections.abc import Iterable

_LENGTH_BYTES = 2


def split(data: bytes) -> list[bytes]:
    """Return the pieces; the last one may be shorter than it says."""
    pieces = []
    place = 0
    while place < len(data):
        length = int.from_bytes(data[place : place + _LENGTH_BYTES], "big")
        place += _LENGTH_BYTES
        pieces.append(data[place : place + length])
        place += length
    return pieces


def joined(pieces: Iterable[bytes]) -> bytes:
    """Return the input that `pieces` come of."""
    return b"".join(len(piece).to_bytes(_LENGTH_BYTES, "big") + piece for piece in pieces)
