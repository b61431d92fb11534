"""A disk that is soon full: a file system of some megabytes that only one thread can see.

The thread that mounts it and the processes that it starts have a mount namespace of their own. No
other process sees the disk, and it is gone when they end. It needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path

_CLONE_NEWNS = 0x0002_0000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_PIECE = bytes(64 * 1024)


class SmallDisk:
    """Mounted at `path`, a directory. Only the thread that called `mount` may use it."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self._size_bytes = size_bytes
        self._balloon = path / "balloon"

    def mount(self) -> None:
        """Mount it. Raises OSError if that is not allowed."""
        libc = ctypes.CDLL(None, use_errno=True)
        _checked(libc.unshare(_CLONE_NEWNS))
        # Keep the mounts from here on private to this namespace.
        _checked(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
        options = f"size={self._size_bytes},mode=0755".encode()
        _checked(libc.mount(b"tmpfs", os.fsencode(self.path), b"tmpfs", 0, options))

    def fill(self) -> int:
        """Use up all free space. Return how many bytes that was."""
        free = os.statvfs(self.path)
        taken = free.f_bavail * free.f_frsize
        with self._balloon.open("ab", buffering=0) as balloon:
            with contextlib.suppress(OSError):  # another process used the space first
                os.posix_fallocate(balloon.fileno(), 0, taken)
            taken = balloon.seek(0, os.SEEK_END)
            for piece in (_PIECE, b"\0"):
                try:
                    while True:
                        taken += balloon.write(piece) or 0
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        return taken

    def empty(self) -> None:
        """Free what `fill` took."""
        self._balloon.unlink(missing_ok=True)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
