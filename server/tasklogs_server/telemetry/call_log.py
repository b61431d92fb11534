"""One line of the log per call: id, method, task, code, duration. Never its content.

Lines are formatted by hand, and written together every tenth of a second. Through structlog, one by
one, they cost several percent of a small read.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Literal

from tasklogs_server.telemetry.calls import Call

_GATHER_SECONDS = 0.1
_FULL_LINES = 1000


class CallLog:
    """Makes the lines, and gives them to `write`.

    `only_failed` leaves out calls that ended OK or CANCELLED.
    `worker`: the number of this worker, for each line; None: there is only one process.
    """

    def __init__(
        self,
        write: Callable[[Sequence[str]], None],
        log_format: Literal["console", "json"],
        *,
        only_failed: bool,
        worker: int | None = None,
    ) -> None:
        self._write = write
        self._format = _json if log_format == "json" else _console
        field = f', "worker": {worker}}}' if log_format == "json" else f" worker={worker}"
        self._end = field if worker is not None else "}" if log_format == "json" else ""
        self._only_failed = only_failed
        self._lines: list[str] = []
        self._second = 0
        self._second_text = ""

    def ended(self, call: Call, code: str) -> None:
        """Add the line of a call that ended with `code`."""
        if self._only_failed and code in ("OK", "CANCELLED"):
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self.flush)
        self._lines.append(self._format(call, code, self._now()) + self._end)
        if len(self._lines) >= _FULL_LINES:
            self.flush()

    def flush(self) -> None:
        """Write the lines that are waiting."""
        lines, self._lines = self._lines, []
        if lines:
            self._write(lines)

    def _now(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((now - second) * 1e6):06d}Z"


# Only a caller's own request id needs escapes: it is printable ASCII without spaces. Only served
# methods are logged.


def _json(call: Call, code: str, now: str) -> str:
    task = "null" if call.task_id is None else f'"{call.task_id}"'
    request_id = json.dumps(call.request_id)
    return (
        f'{{"event": "rpc.ended", "level": "info", "timestamp": "{now}", "request_id":'
        f' {request_id}, "method": "{call.method}", "task": {task}, "code": "{code}",'
        f' "duration_ms": {(time.perf_counter() - call.began) * 1000:.3f}'
    )


def _console(call: Call, code: str, now: str) -> str:
    return (
        f"{now} [info     ] rpc.ended                      code={code}"
        f" duration_ms={(time.perf_counter() - call.began) * 1000:.3f} method={call.method}"
        f" request_id={call.request_id} task={call.task_id or '-'}"
    )
