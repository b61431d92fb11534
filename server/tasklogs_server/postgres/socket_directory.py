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
# Postgres' list syntax, libpq, asyncpg and SQLAlchemy all parse the path and disagree about commas,
# colons, quotes and spaces: whatever is not plain moves to a directory that is.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._+-]*")


class SocketDirectory:
    """A 0700 directory: `home`/socket, or a short temporary one where that path would not do.

    Whoever can pass it may connect as Postgres' superuser, so nobody else may. The place of a
    temporary directory is noted in `home`, so that the next start removes what a killed one left.
    """

    def __init__(self, home: Path, owner: tuple[int, int] | None = None) -> None:
        """`home`: Postgres' own directory, locked. `owner`: uid and gid, None for our own."""
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
        # Nothing serves this directory (the caller made sure), so what lies in it is a dead
        # server's. Its lock file may name a pid that lives on as a stranger's, which Postgres would
        # take for a server.
        for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
            (self.path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Once Postgres is gone."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._note.unlink(missing_ok=True)

    def _remove_noted(self) -> None:
        if self._note.exists():
            noted = Path(self._note.read_text().strip())
            # A restored backup may carry an old note: remove only what can have been ours.
            if noted.name.startswith(TEMPORARY_PREFIX) and noted.parent in _temporary_parents():
                shutil.rmtree(noted, ignore_errors=True)
            self._note.unlink()


def usable(directory: Path) -> bool:
    """Whether all who must name a socket in `directory` can."""
    socket = str(directory / SOCKET_NAME)
    return len(os.fsencode(socket)) <= LONGEST_PATH_BYTES and bool(PLAIN_PATH.fullmatch(socket))


def _temporary_parents() -> list[Path]:
    return [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]


def _make_temporary() -> Path:
    for parent in _temporary_parents():
        if usable(parent / f"{TEMPORARY_PREFIX}12345678") and os.access(parent, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=parent))
    raise EmbeddedPostgresError(
        "no directory with a short path can be written for Postgres' socket"
    )
