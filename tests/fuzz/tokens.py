"""Byte strings that often break decoders: ends of ranges, separators, unclosed brackets."""

COMMON = (
    *(b"\0", b"\xff", b"\x80", b"\n", b"\r\n", b" ", b"=", b".", b"-1", b"1e400", b"NaN"),
    *(b"\x00" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + b"\x00" * 7, b"9" * 30),
    *(b"[" * 64, b'{"a":' * 16, b"null", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xe2\x80\xae"),
    *(b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\x0a\xff\xff\xff\xff\x07"),
)
