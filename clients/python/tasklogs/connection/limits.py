"""What a client may send along with a call, the same on both sides."""

from __future__ import annotations

MAX_TOKEN_BYTES = 16 * 1024
"""The longest token that a server accepts. A token with 180 groups has 10 KB."""

MAX_METADATA_BYTES = 32 * 1024
"""The most that all metadata of a call may have, in either direction.

It has room for the longest token, a `baggage` of 8 KiB (the most that W3C asks for), and 7 KiB for
the rest. It is counted as in RFC 9113, 6.5.2: for each field its name, its value, and 32 bytes.
"""

METADATA_OPTIONS = (
    # Between the two limits gRPC refuses calls at random, so they are the same. By default they
    # are 8 and 16 KiB: a token of 8 KB failed in 1 of 14 calls.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
)
"""gRPC's channel arguments for these limits."""
