"""How log_tail_parts stores a change of the tail.

A change that keeps a prefix has its length in `keep_bytes`, and its text in `text`. Any other
change has NULL in `keep_bytes`, and its encoded pieces in `text`. So a read needs the same two
columns for both, and a growing answer needs no encoding.
"""

from __future__ import annotations

from collections.abc import Sequence

from tasklogs.log.delta import Delta, patch, put
from tasklogs.log.text import is_boundary
from tasklogs_server.domain.errors import LogCorrupt
from tasklogs_server.wire.deltas import decode_pieces, encode_pieces


def columns_of(delta: Delta) -> tuple[int | None, bytes]:
    """Return `keep_bytes` and `text` of a part."""
    if delta.is_prefix:
        [piece] = delta.pieces
        return piece.length, piece.text
    return None, encode_pieces(delta)


def folded(base: bytes, keeps: Sequence[int | None], texts: Sequence[bytes]) -> bytes:
    """Return the tail's content: its row `base` with all parts applied. Raises LogCorrupt.

    A tail that grew for long has thousands of parts, so this makes no object for each.
    """
    content = bytearray(base)
    try:
        for keep_bytes, text in zip(keeps, texts, strict=True):
            if keep_bytes is None:
                patch(content, decode_pieces(text))
            elif is_boundary(content, keep_bytes):
                put(content, keep_bytes, text)
            else:
                raise LogCorrupt
    except ValueError as error:
        raise LogCorrupt from error
    return bytes(content)


def deltas_of(keeps: Sequence[int | None] | None, texts: Sequence[bytes] | None) -> Sequence[Delta]:
    """Return the changes that these columns of parts have. Raises LogCorrupt."""
    try:
        return [
            decode_pieces(text) if keep_bytes is None else Delta.keeping(keep_bytes, text)
            for keep_bytes, text in zip(keeps or (), texts or (), strict=True)
        ]
    except ValueError as error:
        raise LogCorrupt from error
