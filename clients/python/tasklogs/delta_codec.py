"""`tasklogs.v1.ContentDelta`, from plain data and back.

No other module reads or writes its pieces: `from` is a keyword of Python, so the field has no
attribute of its name.
"""

from __future__ import annotations

from tasklogs.log.delta import Delta, Piece
from tasklogs.v1 import types_pb2


def encode(delta: Delta, crc32: int | None) -> types_pb2.ContentDelta:
    """Return `delta` as a message. `crc32`: that of the result; None: without one."""
    message = types_pb2.ContentDelta(crc32=crc32)
    for start, length, text in delta.pieces:
        piece = message.pieces.add(bytes=length, text=text.decode())
        if start:
            setattr(piece, "from", start)
    return message


def decode(message: types_pb2.ContentDelta) -> Delta:
    """Return the pieces of `message`. They are not checked, and there may be none.

    The caller bounds the number of pieces and reads the checksum.
    """
    return Delta(
        tuple(
            Piece(getattr(piece, "from"), piece.bytes, piece.text.encode())
            for piece in message.pieces
        )
    )
