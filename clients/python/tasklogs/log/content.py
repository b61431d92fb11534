"""A content that deltas change in place, and its checksum."""

from __future__ import annotations

import zlib

from tasklogs.log.delta import Delta, DeltaError, check, put, replacement
from tasklogs.log.truncation import MAX_CONTENT_BYTES


class WrongChecksum(DeltaError):
    """The result has another CRC-32: the delta was made for another base."""


class Content:
    """A content and its CRC-32 (zlib's).

    The checksum is computed when it is first asked for. A delta that only appends continues it, so
    its cost does not depend on the length of the content.
    """

    __slots__ = ("_crc32", "data")

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        """Changed only by this class."""
        self._crc32: int | None = None

    def __len__(self) -> int:
        return len(self.data)

    @property
    def crc32(self) -> int:
        """The CRC-32 of the content."""
        if self._crc32 is None:
            self._crc32 = zlib.crc32(self.data)
        return self._crc32

    def patch(
        self, delta: Delta, *, crc32: int | None = None, limit_bytes: int = MAX_CONTENT_BYTES
    ) -> None:
        """Apply `delta`. `crc32`: that of the result; None: it is not checked.

        Raises DeltaError if it does not fit, and WrongChecksum. Then nothing has changed.
        """
        data = self.data
        check(data, delta, limit_bytes=limit_bytes)
        keep, added = replacement(data, delta)
        found = None
        if crc32 is not None or self._crc32 is not None:
            found = self._checksum(keep, added, is_wanted=crc32 is not None)
        if crc32 is not None and found != crc32:
            raise WrongChecksum("has a result with another checksum")
        put(data, keep, added)
        self._crc32 = found

    def patch_unchecked(self, delta: Delta, crc32: int) -> None:
        """Apply `delta`, for which `crc32` was checked before. Raises DeltaError."""
        self.patch(delta)
        self._crc32 = crc32

    def _checksum(self, keep: int, added: bytes, *, is_wanted: bool) -> int | None:
        if keep == len(self.data):
            known = self.crc32 if is_wanted else self._crc32
            return None if known is None else zlib.crc32(added, known)
        if not is_wanted:
            return None
        with memoryview(self.data) as view, view[:keep] as kept:
            return zlib.crc32(added, zlib.crc32(kept))
