"""The private directory of Postgres' unix socket."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from tasklogs_server.postgres.errors import EmbeddedPostgresError

PORT = 5432
SOCKET_NAME = f".s.PGSQL.{PORT}"
LONGEST_PATH_BYTES = 100  # Linux takes 107
TEMPORARY_PREFIX = "pg-socket-"
# Postgres, libpq, asyncpg and SQLAlchemy all parse the path, and disagree about commas, colons,
# quotes and spaces. If the path has any other character, a temporary directory is used.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._+-]*")


class SocketDirectory:
    """A directory with mode 0700: `home`/socket, or a temporary one if that path is unusable.

    A user who can enter it can connect as the superuser of Postgres: hence the mode. The path of a
    temporary directory is written to a file in `home`. The next start removes the directory if this
    one is killed.
    """

    def __init__(self, home: Path, owner: tuple[int, int] | None = None) -> None:
        """`home`: the directory of Postgres, locked. `owner`: uid and gid, None: this process's."""
        self._note = home / "socket-directory"
        self._remove_noted()
        inside = home / "socket"
        if usable(inside):
            inside.mkdir(mode=0o700, exist_ok=True)
            self.path = inside
        else:
            self.path = _make_temporary()
            self._note.write_text(f"{self.path}\n")
        if owner is not None:
            os.chown(self.path, *owner)
        self.path.chmod(0o700)
        # No process serves this directory (the caller made sure), so its files are those of a dead
        # server. The pid in its lock file may belong to an unrelated process by now, which Postgres
        # would take for a server.
        for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
            (self.path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory. Postgres must have ended."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._note.unlink(missing_ok=True)

    def _remove_noted(self) -> None:
        if self._note.exists():
            noted = Path(self._note.read_text().strip())
            # A restored backup may contain an old path: remove only what this class can make.
            if noted.name.startswith(TEMPORARY_PREFIX) and noted.parent in _temporary_parents():
                shutil.rmtree(noted, ignore_errors=True)
            self._note.unlink()


def usable(directory: Path) -> bool:
    """Whether every library can name a socket in `directory`."""
    socket = str(directory / SOCKET_NAME)
    return len(os.fsencode(socket)) <= LONGEST_PATH_BYTES and bool(PLAIN_PATH.fullmatch(socket))


def _temporary_parents() -> list[Path]:
    return [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]


def _make_temporary() -> Path:
    for parent in _temporary_parents():
        if usable(parent / f"{TEMPORARY_PREFIX}12345678") and os.access(parent, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=parent))
    raise EmbeddedPostgresError(
        "found no writable directory with a short path for the socket of Postgres"
    )
