"""`tasklogs.v1.CompressedMessage`: a large message that becomes much shorter travels compressed.

A field, not the compression of gRPC: a message to many followers is compressed once, small messages
cost nothing, and the receiver limits what it expands.
"""

from __future__ import annotations

import zlib

from tasklogs.v1 import types_pb2

MAX_EXPANDED_BYTES = 256 * 1024
"""The longest message that is compressed, and that a receiver expands: a peer can make it hold so
much with a kilobyte. To compress a longer one could take its sender 10 ms in one go."""
LEAST_BYTES = 256
"""A shorter message is never compressed."""
_SAMPLE_BYTES = 1024
_WORTHWHILE = 0.5
"""Screens, which are mostly blank, shrink to a fiftieth. Prose shrinks by half, which takes ten
times as long as to send it."""
_LEVEL = 6
"""Of a screen, level 6 makes 500 bytes instead of 1,200, and needs 500 instead of 80 us."""
_STEP_BYTES = 64 * 1024


class CannotExpand(ValueError):
    """The bytes are not a compressed message of the length that they claim."""


def compressed(encoded: bytes) -> types_pb2.CompressedMessage | None:
    """Compress an encoded message. None: it is not worthwhile."""
    size_bytes = len(encoded)
    if not LEAST_BYTES <= size_bytes <= MAX_EXPANDED_BYTES:
        return None
    if size_bytes > 2 * _SAMPLE_BYTES:
        begin = (size_bytes - _SAMPLE_BYTES) // 2
        sample = zlib.compress(encoded[begin : begin + _SAMPLE_BYTES], 1)
        if len(sample) > _SAMPLE_BYTES * _WORTHWHILE:
            return None
    short = zlib.compress(encoded, _LEVEL)
    if len(short) > size_bytes * _WORTHWHILE:
        return None
    return types_pb2.CompressedMessage(zlib=short, size_bytes=size_bytes)


def shrinks(encoded: bytes, to: float = _WORTHWHILE) -> bool:
    """Whether samples of a long message shrink to this part of their length.

    A sender then makes several messages of it, each short enough to be compressed.
    """
    begins = [len(encoded) * part // 8 for part in (1, 3, 5, 7)]
    samples = [zlib.compress(encoded[at : at + _SAMPLE_BYTES], 1) for at in begins]
    return sum(map(len, samples)) <= len(samples) * _SAMPLE_BYTES * to


class Expansion:
    """Expands a message step by step. Each step takes about a millisecond at most."""

    def __init__(self, message: types_pb2.CompressedMessage) -> None:
        """Raises CannotExpand."""
        if not 1 <= message.size_bytes <= MAX_EXPANDED_BYTES:
            raise CannotExpand(f"claims {message.size_bytes} bytes, not 1 to {MAX_EXPANDED_BYTES}")
        self._left_bytes = message.size_bytes
        self._rest = message.zlib
        self._zlib = zlib.decompressobj()
        self._parts: list[bytes] = []

    @property
    def is_whole(self) -> bool:
        """Whether all is expanded."""
        return not self._left_bytes

    def step(self) -> None:
        """Expand some more. Raises CannotExpand."""
        part = self._expand(min(_STEP_BYTES, self._left_bytes))
        if not part:
            raise CannotExpand("is shorter than it claims")
        self._parts.append(part)
        self._left_bytes -= len(part)

    def result(self) -> bytes:
        """Return the expanded message. Raises CannotExpand if more follows it."""
        if self._expand(1) or not self._zlib.eof or self._zlib.unused_data:
            raise CannotExpand("is longer than it claims, or is cut off")
        return b"".join(self._parts)

    def _expand(self, most_bytes: int) -> bytes:
        try:
            part = self._zlib.decompress(self._rest, most_bytes)
        except zlib.error as error:
            raise CannotExpand(f"cannot be decompressed: {error}") from None
        self._rest = self._zlib.unconsumed_tail
        return part


def expanded(message: types_pb2.CompressedMessage) -> bytes:
    """Return the encoded message. Raises CannotExpand."""
    expansion = Expansion(message)
    while not expansion.is_whole:
        expansion.step()
    return expansion.result()
