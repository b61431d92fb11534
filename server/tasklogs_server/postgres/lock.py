"""One supervisor per data directory."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from tasklogs_server.postgres.errors import EmbeddedPostgresError


class DataDirectoryLock:
    """Held from creation to `release()` or to the end of this process, however that comes.

    The kernel frees a flock with its last descriptor, so a killed supervisor leaves no stale lock.
    The descriptor is close-on-exec (Python's default): neither Postgres nor any other child keeps
    it alive. The pid inside is for the error message only and decides nothing.
    """

    def __init__(self, data_dir: Path) -> None:
        """Raises EmbeddedPostgresError at once when another supervisor holds the directory."""
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
        """Lets the next one in."""
        # The file stays: removing it would let two starts lock two different files of one name.
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
