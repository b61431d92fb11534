"""As whom Postgres runs, since it refuses to run as root.

No identity changes the mode or owner of a directory that was there before.
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
    """Where Postgres' own files live, which binaries it uses, and what the launcher must do."""

    @property
    @abstractmethod
    def launch_option(self) -> str:
        """The launcher's IDENTITY argument."""

    @property
    def owner(self) -> tuple[int, int] | None:
        """Uid and gid of Postgres' directories on disk; None: this process's own."""
        return None

    def home(self, data_dir: Path) -> Path:
        """Where Postgres' files live when the caller named `data_dir`."""
        return data_dir

    def prepare(self, data_dir: Path, binaries: Binaries) -> Binaries:
        """Makes `home` and returns the binaries to use.

        `data_dir` exists. Raises EmbeddedPostgresError or OSError.
        """
        return binaries


class Direct(Identity):
    """As this process's own user."""

    @property
    def launch_option(self) -> str:
        """Nothing to do."""
        return "self"


@dataclass(frozen=True)
class UserNamespace(Identity):
    """As this process's user on disk, which looks like `uid` from the inside.

    It keeps reaching everything that this user owns, a 0700 home above all, but root loses its
    power over the files of others. It also lends a name to a uid that has no account, which initdb
    needs.
    """

    uid: int
    gid: int

    @property
    def launch_option(self) -> str:
        """A new namespace."""
        return f"namespace:{self.uid}:{self.gid}"


@dataclass(frozen=True)
class UnprivilegedUser(Identity):
    """As another user, for a root without user namespaces (in a container, usually).

    That user may be unable to reach the data directory or the wheel (0700 homes), so both the
    binaries (copied, owned by root) and the data live under `state_root`.
    """

    uid: int
    gid: int
    state_root: Path = STATE_ROOT

    @property
    def launch_option(self) -> str:
        """Another user."""
        return f"user:{self.uid}:{self.gid}"

    @property
    def owner(self) -> tuple[int, int]:
        """That user."""
        return self.uid, self.gid

    def home(self, data_dir: Path) -> Path:
        """A directory per data directory, found again by its path."""
        digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()
        return self.state_root / "clusters" / digest[:16]

    def prepare(self, data_dir: Path, binaries: Binaries) -> Binaries:
        """Makes what is missing under `state_root`, and copies the binaries once a version."""
        copies, clusters = self.state_root / "binaries", self.state_root / "clusters"
        for directory in (self.state_root, copies, clusters):
            make_passable(directory)
        # Root's, with Postgres' own directories inside: its user plants no symlinks here.
        home = self.home(data_dir)
        if not home.exists():
            home.mkdir()
            home.chmod(0o711)
        return copy_binaries(binaries, copies)


def make_passable(directory: Path) -> None:
    """A new directory lets all pass, whatever the umask; one that exists must be root's own."""
    if not directory.exists():
        directory.mkdir(parents=True)
        directory.chmod(0o755)
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise EmbeddedPostgresError(f"{directory} must be root's, writable by root alone")
