"""One line of the log per call: id, method, task, code, duration. Never what was said in it.

A line is formatted by hand, and lines of one turn of the loop are written at once: through
structlog a line cost three times as much, several percent of a small read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, TextIO

from tasklogs_server.telemetry.calls import Call

_JSON = (
    '{{"event": "rpc", "level": "info", "timestamp": "{time}", "request_id": "{id}",'
    ' "method": "{method}", "task": {task}, "code": "{code}", "duration_ms": {ms:.3f}}}\n'
)
_CONSOLE = (
    "{time} [info     ] rpc                            code={code} duration_ms={ms:.3f}"
    " method={method} request_id={id} task={task}\n"
)


class CallLog:
    """Writes the lines. `only_failed`: of calls that ended OK or were cancelled there is none."""

    def __init__(
        self, out: TextIO, log_format: Literal["console", "json"], *, only_failed: bool
    ) -> None:
        self._out = out
        self._is_json = log_format == "json"
        self._only_failed = only_failed
        self._lines: list[str] = []
        self._now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def ended(self, call: Call, code: str) -> None:
        """Write that a call has ended."""
        if self._only_failed and code in ("OK", "CANCELLED"):
            return
        # Nothing here needs escaping: ids are checked, methods are those that are served.
        task = "null" if call.task_id is None else str(call.task_id)
        if self._is_json and call.task_id is not None:
            task = f'"{task}"'
        line = (_JSON if self._is_json else _CONSOLE).format(
            time=self._now().isoformat().replace("+00:00", "Z"),
            id=call.request_id,
            method=call.method,
            task=task,
            code=code,
            ms=(time.perf_counter() - call.began) * 1000,
        )
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what has gathered."""
        lines, self._lines = self._lines, []
        if lines:
            self._out.write("".join(lines))
            self._out.flush()
