"""The process's limit of open files, and its garbage collection."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress

import structlog

# Open files that are not connections of clients: Postgres, listeners, event loop, certificates.
_OTHER_FILES = 256
# Objects made since the last collection that start the next one. Python's own number is 700, which
# a busy server makes in a few messages.
_YOUNG_OBJECTS = 10_000

_log = structlog.get_logger(__name__)


def connections_within_open_files(wanted: int) -> int:
    """Return how many of `wanted` connections the limit of open files allows.

    The soft limit is raised first, as far as needed and allowed. If `accept` reached the limit,
    everything else would fail too: connections to Postgres, certificates, the embedded Postgres.
    """
    if sys.platform == "win32":
        return wanted
    import resource

    files = wanted + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= files:
        return wanted
    # A system may have a bound below the hard limit (macOS), or forbid the change.
    with suppress(ValueError, OSError):
        raised = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    if soft >= files:
        return wanted
    allowed = max(soft - _OTHER_FILES, soft // 2)
    _log.warning(
        "connections.reduced",
        connections=allowed,
        fix=f"raise the hard limit of open files to {files}",
    )
    return allowed


def freeze_garbage_collection() -> None:
    """Leave all objects that exist now out of every later collection.

    Call it once, when everything is imported and built. To look at those objects again took up to
    120 ms in each collection, and no stream moved meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
