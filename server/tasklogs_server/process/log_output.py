"""How the server writes its own log: each line also names the call that it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from structlog.types import EventDict, Processor

from tasklogs import log_output
from tasklogs.log_output import LogFormat
from tasklogs.tracebacks import traceback_of as traceback_of
from tasklogs_server.telemetry.calls import with_call


def configure(
    log_format: LogFormat,
    log_level: str,
    *,
    is_ignored: Callable[[BaseException], bool] = lambda _: False,
    worker: int | None = None,
) -> None:
    """Set up structlog for this process, and what libraries log through `logging`.

    A library's record is dropped if it reports an error that `is_ignored`. `worker`: the number of
    this worker, for each line; None: there is only one process.
    """
    own: Sequence[Processor] = [] if worker is None else [_of_worker(worker)]
    log_output.configure(
        log_format,
        log_level,
        context=[structlog.contextvars.merge_contextvars, with_call, *own],
        is_ignored=is_ignored,
    )


def _of_worker(worker: int) -> Processor:
    def add(_: object, __: str, line: EventDict) -> EventDict:
        line["worker"] = worker
        return line

    return add
