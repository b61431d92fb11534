"""Creates a data directory with initdb, complete or not at all."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

from tasklogs_server.postgres.binaries import Binaries
from tasklogs_server.postgres.errors import EmbeddedPostgresError
from tasklogs_server.postgres.identity import Identity
from tasklogs_server.postgres.leftovers import wait_for_orphans
from tasklogs_server.postgres.log_file import LogFile
from tasklogs_server.postgres.processes import launch

USER = "postgres"
UNFINISHED_PREFIX = "initialising-"
ORPHAN_TIMEOUT_S = 30.0

INITDB_OPTIONS = (
    f"--username={USER}",
    "--encoding=UTF8",
    # Part of Postgres itself: the same sort order on every machine, whatever its libc has.
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    # The mode of the socket's directory, 0700, is the authentication. There is no TCP.
    "--auth-local=trust",
    "--auth-host=reject",
    "--no-instructions",
)


def cluster_directory(home: Path) -> Path:
    """Return what Postgres calls its data directory."""
    return home / "cluster"


def has_cluster(home: Path) -> bool:
    """Whether `home` has a database. It has none while initdb runs."""
    return (cluster_directory(home) / "PG_VERSION").exists()


async def initialise(
    identity: Identity, binaries: Binaries, home: Path, log: LogFile, *, sync: bool
) -> None:
    """Create `home`/cluster. Raises EmbeddedPostgresError.

    It has another name until it is complete, so that a kill leaves no incomplete one.
    """
    for unfinished in _unfinished(home):
        await wait_for_orphans(unfinished, ORPHAN_TIMEOUT_S)
        shutil.rmtree(unfinished)
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED_PREFIX, dir=home))
    initialiser = identity.initialiser
    if initialiser.owner is not None:
        os.chown(unfinished, *initialiser.owner)
    command = [str(binaries.initdb), *INITDB_OPTIONS, f"--pgdata={unfinished}"]
    if not sync:
        command.append("--no-sync")
    process = await launch(initialiser, unfinished, command, log.fileno(), signal.SIGTERM)
    try:
        status = await process.wait()
    except BaseException:
        process.terminate()
        await process.wait()
        raise
    if status != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        reason = log.last_complaint() or f"initdb ended with {status}"
        raise EmbeddedPostgresError(f"cannot initialise a database in {home}: {reason}")
    identity.take_over(unfinished)
    unfinished.rename(cluster_directory(home))
    _sync_directory(home)


def _unfinished(home: Path) -> list[Path]:
    """Return the directories that killed starts left behind."""
    return list(home.glob(f"{UNFINISHED_PREFIX}*"))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
