"""HTTP/2 written by hand (RFC 9113, RFC 7541), so that frames can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME_BYTES = 16_384

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4

INITIAL_WINDOW_SIZE = 0x4
MAX_WINDOW_BYTES = 2**31 - 1

Fields = Iterable[tuple[str, str]]


class Kind(IntEnum):
    """The type of a frame."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


@dataclass(frozen=True, slots=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


HEADER_BYTES = 9


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_of(raw: bytes) -> tuple[int, Frame]:
    """Return the length of the payload, and the frame without its payload."""
    length = int.from_bytes(raw[:3], "big")
    kind, flags, stream = struct.unpack(">BBI", raw[3:])
    return length, Frame(kind, flags, stream & MAX_WINDOW_BYTES, b"")


def settings(values: dict[int, int] | None = None) -> bytes:
    pairs = (values or {}).items()
    return frame(Kind.SETTINGS, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_update(increment: int, stream: int = 0) -> bytes:
    return frame(Kind.WINDOW_UPDATE, struct.pack(">I", increment), stream=stream)


def rst_stream(stream: int, code: int = 0x8) -> bytes:
    return frame(Kind.RST_STREAM, struct.pack(">I", code), stream=stream)


def header_block(fields: Fields) -> bytes:
    """Encode every field as a literal without indexing and without Huffman coding."""
    return b"".join(
        b"\x00" + _string(name.encode()) + _string(value.encode()) for name, value in fields
    )


def request_fields(
    path: str, *, scheme: str = "http", token: str | None = None, more: Fields = ()
) -> list[tuple[str, str]]:
    fields = [
        (":method", "POST"),
        (":scheme", scheme),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    if token is not None:
        fields.append(("authorization", f"Bearer {token}"))
    return [*fields, *more]


def headers(stream: int, fields: Fields, *, end_stream: bool = False) -> bytes:
    flags = END_HEADERS | (END_STREAM if end_stream else 0)
    return frame(Kind.HEADERS, header_block(fields), flags=flags, stream=stream)


def message(stream: int, encoded: bytes, *, end_stream: bool = True) -> bytes:
    """Return one gRPC message in one DATA frame."""
    payload = b"\x00" + struct.pack(">I", len(encoded)) + encoded
    return frame(Kind.DATA, payload, flags=END_STREAM if end_stream else 0, stream=stream)


def _string(text: bytes) -> bytes:
    return integer(len(text), prefix_bits=7) + text


def integer(value: int, *, prefix_bits: int) -> bytes:
    """Return an HPACK integer (RFC 7541, 5.1). The bits before its prefix are zero."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes([value])
    out, value = bytearray([most]), value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)
