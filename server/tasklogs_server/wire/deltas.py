"""Deltas of a content, for the API's messages and for the store."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from tasklogs import delta_codec
from tasklogs.log.delta import MAX_PIECES, Delta
from tasklogs.v1 import types_pb2
from tasklogs_server.domain.errors import FieldViolation, InvalidFields


def content_delta(delta: Delta, crc32: int) -> types_pb2.ContentDelta:
    """Encode a delta. `crc32` is that of the resulting content."""
    return delta_codec.encode(delta, crc32)


def delta_of(
    encoded: types_pb2.ContentDelta, field: str, violations: list[FieldViolation]
) -> tuple[Delta, int]:
    """Decode a delta and the CRC-32 of its result. Whether it fits its base is not checked here."""
    if not encoded.HasField("crc32"):
        violations.append(FieldViolation(f"{field}.crc32", "is required"))
    if not 1 <= len(encoded.pieces) <= MAX_PIECES:
        violations.append(_pieces_violation(field))
        return Delta.keeping(0, b""), 0
    return delta_codec.decode(encoded), encoded.crc32


def check_pieces(count: int, field: str) -> None:
    """Raise InvalidFields if a delta that is not decoded yet has too many pieces."""
    if count > MAX_PIECES:
        raise InvalidFields([_pieces_violation(field)])


def _pieces_violation(field: str) -> FieldViolation:
    return FieldViolation(f"{field}.pieces", f"must be 1 to {MAX_PIECES} pieces")


def encode_pieces(delta: Delta) -> bytes:
    """Encode the pieces as the store has them: a ContentDelta without a checksum."""
    return delta_codec.encode(delta, None).SerializeToString()


def decode_pieces(encoded: bytes) -> Delta:
    """Decode what `encode_pieces` made. Raises ValueError."""
    try:
        return delta_codec.decode(types_pb2.ContentDelta.FromString(encoded))
    except DecodeError as error:
        raise ValueError(str(error)) from None
