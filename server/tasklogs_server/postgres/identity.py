"""As whom Postgres runs, since it refuses to run as root.

Each identity says where Postgres' own files live (`home`), which binaries it uses, and what the
launcher must do. None changes the mode or owner of a directory that was there before.
"""

import hashlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tasklogs_server.postgres.binaries import Binaries, copy_binaries
from tasklogs_server.postgres.errors import EmbeddedPostgresError

STATE_ROOT = Path("/var/lib/tasklogs")


class Identity(Protocol):
    @property
    def launch_option(self) -> str:
        """The launcher's IDENTITY argument."""

    @property
    def owner(self) -> tuple[int, int] | None:
        """Uid and gid that own Postgres' files on disk; None: this process's own."""

    def home(self, data_dir: Path) -> Path:
        """Where Postgres' files live when the caller named `data_dir`."""

    def prepare(self, data_dir: Path, binaries: Binaries) -> Binaries:
        """Makes `home` and returns the binaries to use. Raises EmbeddedPostgresError or OSError."""


@dataclass(frozen=True)
class Direct:
    """As this process's own user."""

    launch_option: str = "self"
    owner: tuple[int, int] | None = None

    def home(self, data_dir: Path) -> Path:
        return data_dir

    def prepare(self, data_dir: Path, binaries: Binaries) -> Binaries:
        return binaries


@dataclass(frozen=True)
class UserNamespace:
    """As this process's user on disk, which looks like `uid` from the inside.

    It keeps reaching everything that this user owns, a 0700 home above all, but root loses its
    power over the files of others. It also lends a name to a uid that has no account, which initdb
    needs.
    """

    uid: int
    gid: int
    owner: tuple[int, int] | None = None

    @property
    def launch_option(self) -> str:
        return f"namespace:{self.uid}:{self.gid}"

    def home(self, data_dir: Path) -> Path:
        return data_dir

    def prepare(self, data_dir: Path, binaries: Binaries) -> Binaries:
        return binaries


@dataclass(frozen=True)
class UnprivilegedUser:
    """As another user, for a root without user namespaces (a container, usually).

    That user may be unable to reach the data directory or the wheel (0700 homes), so both the
    binaries (copied, owned by root) and the data live under `state_root`.
    """

    uid: int
    gid: int
    state_root: Path = STATE_ROOT

    @property
    def launch_option(self) -> str:
        return f"user:{self.uid}:{self.gid}"

    @property
    def owner(self) -> tuple[int, int] | None:
        return self.uid, self.gid

    def home(self, data_dir: Path) -> Path:
        digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()
        return self.state_root / "clusters" / digest[:16]

    def prepare(self, data_dir: Path, binaries: Binaries) -> Binaries:
        for directory in (
            self.state_root,
            self.state_root / "binaries",
            self.state_root / "clusters",
        ):
            _make_passable(directory)
        home = self.home(data_dir)
        if not home.exists():
            # Root's, with Postgres' own directories inside: its user plants no symlink for root here.
            home.mkdir()
            home.chmod(0o711)
        return copy_binaries(binaries, self.state_root / "binaries")


def _make_passable(directory: Path) -> None:
    """A new directory lets all pass, whatever the umask; one that exists must be root's own."""
    if not directory.exists():
        directory.mkdir(parents=True)
        directory.chmod(0o755)
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise EmbeddedPostgresError(
            f"{directory} must belong to root and be writable by root alone"
        )


def stand_in_account() -> tuple[int, int]:
    """Uid and gid of an account without rights: `nobody`, else any but root's."""
    accounts = [account for account in pwd.getpwall() if account.pw_uid != 0]
    accounts.sort(key=lambda account: account.pw_name != "nobody")
    if not accounts:
        raise EmbeddedPostgresError(
            "Postgres refuses to run as root, and this machine has no other account; "
            "add one, or name a Postgres of your own with --database-url"
        )
    return accounts[0].pw_uid, accounts[0].pw_gid


def has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def candidates(data_dir: Path, *, state_root: Path = STATE_ROOT) -> list[Identity]:
    """The identities to try, best first.

    Where a database exists already, its own identity is the only one: another would silently begin
    an empty database elsewhere.
    """
    if os.geteuid() != 0:
        return [Direct()] if has_account(os.geteuid()) else [UserNamespace(*stand_in_account())]
    account = stand_in_account()
    inside = UserNamespace(*account)
    outside = UnprivilegedUser(*account, state_root=state_root)
    if has_cluster(inside.home(data_dir)):
        return [inside]
    if has_cluster(outside.home(data_dir)):
        owner = cluster_directory(outside.home(data_dir)).stat()
        return [UnprivilegedUser(owner.st_uid, owner.st_gid, state_root)]
    return [inside, outside]


def cluster_directory(home: Path) -> Path:
    return home / "cluster"


def has_cluster(home: Path) -> bool:
    return (cluster_directory(home) / "PG_VERSION").exists()
