"""The user that Postgres runs as, because it refuses to run as root.

No identity changes the mode or owner of a directory that it did not create.
"""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tasklogs_server.postgres.binaries import Binaries
from tasklogs_server.postgres.errors import EmbeddedPostgresError

STATE_ROOT = Path("/var/lib/tasklogs")


class Identity(ABC):
    """Where the files of Postgres are, which binaries it uses, and what the launcher must do."""

    @property
    @abstractmethod
    def launch_option(self) -> str:
        """The launcher's IDENTITY argument."""

    @property
    def owner(self) -> tuple[int, int] | None:
        """Uid and gid that own the files of Postgres on disk. None: those of this process."""
        return None

    @property
    def initialiser(self) -> "Identity":
        """The identity that initdb runs with."""
        return self

    def home(self, data_dir: Path) -> Path:
        """Return the directory of Postgres' files for the caller's `data_dir`."""
        return data_dir

    def prepare(self, data_dir: Path, binaries: Binaries) -> Binaries:
        """Create `home`, and return the binaries to use.

        `data_dir` must exist. Raises EmbeddedPostgresError or OSError.
        """
        return binaries

    def take_over(self, directory: Path) -> None:  # noqa: B027 (most identities need nothing)
        """Make the files in `directory`, which no process uses, those of `owner`.

        Raises OSError.
        """


class Direct(Identity):
    """Postgres runs as the user of this process."""

    @property
    def launch_option(self) -> str:
        """Change nothing."""
        return "self"


@dataclass(frozen=True)
class UserNamespace(Identity):
    """Postgres runs as the user of this process, in a namespace where its uid is `uid`.

    It can still reach all files of this user, a 0700 home in particular. Root loses its access to
    the files of other users. A uid without an account gets the name of `uid`'s account, because
    initdb needs one.
    """

    uid: int
    gid: int

    @property
    def launch_option(self) -> str:
        """Enter a new namespace."""
        return f"namespace:{self.uid}:{self.gid}"


def make_passable(directory: Path) -> None:
    """Create a directory that every user may enter, whatever the umask.

    Raises EmbeddedPostgresError if it exists and others than root can write to it.
    """
    if not directory.exists():
        directory.mkdir(parents=True)
        directory.chmod(0o755)
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise EmbeddedPostgresError(
            f"{directory} must belong to root and be writable by root alone"
        )
