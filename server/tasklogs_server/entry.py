"""What `tasklogs serve` runs: one server, or the supervisor of several workers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from tasklogs_server.process.cores import usable_cores
from tasklogs_server.process.event_loop import loop_factory
from tasklogs_server.process.lifecycle import StartupError as StartupError
from tasklogs_server.settings import ServerSettings


def serve(
    settings: ServerSettings,
    *,
    on_progress: Callable[[str], None],
    on_ready: Callable[[str], None],
) -> None:
    """Serve until a signal. For the arguments see `app.serve`. Raises StartupError."""
    if settings.workers == 0:
        settings = settings.model_copy(update={"workers": usable_cores()})
    if settings.workers > 1 and sys.platform != "linux":
        raise StartupError("--workers: several workers can share a port on Linux only")
    with asyncio.Runner(loop_factory=loop_factory(settings.loop)) as runner:
        if settings.workers > 1:
            # Without gRPC, which must not be loaded where processes are started.
            from tasklogs_server.supervision import service

            runner.run(service.serve(settings, on_progress=on_progress, on_ready=on_ready))
        else:
            from tasklogs_server import app

            runner.run(app.serve(settings, on_progress=on_progress, on_ready=on_ready))
