"""The lock that allows one supervisor per data directory."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from tasklogs_server.postgres.errors import EmbeddedPostgresError


class DataDirectoryLock:
    """Held from creation until `release()` or the end of this process, even by a kill.

    The kernel frees a flock with its last descriptor, so a killed supervisor leaves no stale lock.
    The descriptor is close-on-exec (Python's default): neither Postgres nor another child keeps the
    lock. The pid in the file is for the error message only.
    """

    def __init__(self, data_dir: Path) -> None:
        """Raise EmbeddedPostgresError at once if another supervisor holds the directory."""
        self._descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            who = f"process {holder}" if holder else "another process"
            raise EmbeddedPostgresError(
                f"data directory {data_dir} is in use by {who}; stop it or choose another directory"
            ) from None
        except BaseException:
            os.close(self._descriptor)
            raise
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode("ascii"), 0)

    def release(self) -> None:
        """Free the directory for another supervisor."""
        # Keep the file: without it, two starts could lock two different files of this name.
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
