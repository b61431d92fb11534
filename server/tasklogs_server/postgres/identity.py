"""The user that Postgres runs as, because it refuses to run as root.

No identity changes the mode or owner of a directory that existed before.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tasklogs_server.postgres.binaries import Binaries, copy_binaries
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

    def home(self, data_dir: Path) -> Path:
        """Return the directory of Postgres' files for the caller's `data_dir`."""
        return data_dir

    def prepare(self, data_dir: Path, binaries: Binaries) -> Binaries:
        """Create `home`, and return the binaries to use.

        `data_dir` must exist. Raises EmbeddedPostgresError or OSError.
        """
        return binaries


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


@dataclass(frozen=True)
class UnprivilegedUser(Identity):
    """Postgres runs as another user, for root without user namespaces (usually in a container).

    That user may have no access to the data directory or the wheel (0700 homes). So a copy of the
    binaries (owned by root) and the data are kept under `state_root`.
    """

    uid: int
    gid: int
    state_root: Path = STATE_ROOT

    @property
    def launch_option(self) -> str:
        """Become that user."""
        return f"user:{self.uid}:{self.gid}"

    @property
    def owner(self) -> tuple[int, int]:
        """That user."""
        return self.uid, self.gid

    def home(self, data_dir: Path) -> Path:
        """Return one directory for each data directory, named by a hash of its path."""
        digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()
        return self.state_root / "clusters" / digest[:16]

    def prepare(self, data_dir: Path, binaries: Binaries) -> Binaries:
        """Create what is missing under `state_root`, and copy the binaries once per version."""
        copies, clusters = self.state_root / "binaries", self.state_root / "clusters"
        for directory in (self.state_root, copies, clusters):
            make_passable(directory)
        # It belongs to root, and the directories of Postgres are inside it. So the user that
        # Postgres runs as cannot place symlinks here.
        home = self.home(data_dir)
        if not home.exists():
            home.mkdir()
            home.chmod(0o711)
        return copy_binaries(binaries, copies)


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
