"""The cost of telemetry: the same reads with it and without it.

All servers are fresh: one that has served other work, or that logs elsewhere, compares with none.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.processes import our_server
from bench.result import Result, compared
from bench.rounds import interleave
from bench.stage import GET_TASK_LOGS, LOG_BYTES, LOG_ENTRIES, Stage, read_request
from tasklogs.v1 import task_logs_pb2 as pb

_CALLERS = 32
_METRICS = {"TASKLOGS_METRICS_LISTEN": "0"}
# Traces of one call in a hundred, as by default, for a collector that does not exist.
_ALL = _METRICS | {
    "TASKLOGS_LOG_CALLS": "all",
    "TASKLOGS_LOG_FORMAT": "json",
    "TASKLOGS_LOG_LEVEL": "info",
    "TASKLOGS_TRACES": "true",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
}


async def cost_of_a_read(stage: Stage) -> list[Result]:
    """Reads of logs of 64 KB and of 1 KB, 32 callers on 32 tasks."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="tasklogs-bench-") as directory:
        # Lines go to a file: a process that reads a pipe would take CPU time.
        logs = Path(directory)
        async with (
            our_server(stage.dsn, log=logs / "off") as off,
            our_server(stage.dsn, log=logs / "metrics", variables=_METRICS) as metrics,
            our_server(stage.dsn, log=logs / "all", variables=_ALL) as everything,
        ):
            for content_bytes, size in ((LOG_BYTES // LOG_ENTRIES, "64 KB"), (34, "1 KB")):
                tasks = await stage.create_tasks(_CALLERS)
                await stage.fill(tasks, entries=LOG_ENTRIES, content_bytes=content_bytes)
                reads = [[read_request(task, source=pb.LOG_SOURCE_SNAPSHOT)] for task in tasks]
                rounds = await interleave(
                    {
                        "all": stage.load(everything, GET_TASK_LOGS, reads),
                        "off": stage.load(off, GET_TASK_LOGS, reads),
                        "metrics": stage.load(metrics, GET_TASK_LOGS, reads),
                    },
                    stage.rounds,
                    stage.cpu,
                )
                what = f"snapshot read, 30 entries, {size}, 32 callers on 32 tasks"
                for name, on in (("metrics", "metrics"), ("all", "metrics, log, traces")):
                    results.append(
                        compared(
                            f"{what}, with {on}, against none",
                            rounds.compare(name, "off"),
                            unit="calls/s",
                            target=0.95,
                        )
                    )
    return results
