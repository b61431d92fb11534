"""The program of one worker: `python -P -m tasklogs_server.worker DESCRIPTOR LOOP`.

Its supervisor starts it with one end of a socket pair, and the kind of event loop. See
`supervision`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import AsyncExitStack

import structlog

from tasklogs_server import app
from tasklogs_server.bootstrap.security import prepare
from tasklogs_server.concurrency.background import background
from tasklogs_server.middleware.failures import is_disconnect
from tasklogs_server.process import log_output
from tasklogs_server.process.event_loop import loop_factory
from tasklogs_server.process.lifecycle import StartupError, StoppedEarly, StopSignals
from tasklogs_server.process.tuning import freeze_garbage_collection
from tasklogs_server.supervision.link import SupervisorLink, end_without

_log = structlog.get_logger(__name__)


def main() -> int:
    """Serve until the supervisor wants an end, or has ended. Return the exit code."""
    descriptor, loop = int(sys.argv[1]), sys.argv[2]
    os.set_inheritable(descriptor, False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with asyncio.Runner(loop_factory=loop_factory(loop)) as it:
        return it.run(_work(socket.socket(fileno=descriptor)))


async def _work(end: socket.socket) -> int:
    watched = end.dup()
    link = await SupervisorLink.open(end)
    if link is None:
        return 0
    end_without(watched, link.settings)
    try:
        await _serve(link)
    except StartupError as error:
        await link.failed(str(error))
        return 1
    finally:
        link.close()
    return 0


async def _serve(link: SupervisorLink) -> None:
    """Serve until told to stop, then drain. Raises StartupError."""
    settings = link.settings
    log_output.configure(
        settings.log_format, settings.log_level, is_ignored=is_disconnect, worker=link.worker
    )
    async with AsyncExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        await stack.enter_async_context(background(link.run(signals.request)))
        try:
            async with signals.while_starting():
                security = await prepare(settings)
                assert settings.database_url is not None
                running = await stack.enter_async_context(
                    app.run(settings, settings.database_url, security, worker=link.worker)
                )
        except StoppedEarly:
            return
        freeze_garbage_collection()
        link.collect = running.collect_metrics
        link.serves()
        await signals.stop.wait()
        await running.drain()
    _log.info("server.stopped")


if __name__ == "__main__":
    sys.exit(main())
