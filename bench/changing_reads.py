"""Reads of logs that change: a mix of repeated and changed reads, and a task that is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bench.clients import together, workers
from bench.reads import until_active
from bench.result import Result, compared
from bench.rounds import Contestant, interleave
from bench.stage import (
    CLIENTS,
    GET_TASK_LOGS,
    LOG_BYTES,
    LOG_ENTRIES,
    NewTask,
    Stage,
    encoded,
    read_request,
)
from tasklogs.v1 import task_logs_pb2 as pb

_CALLERS = 32
_READS_PER_CHANGE = 10
_CHANGES_PER_SECOND = 20
_CONTENT_BYTES = LOG_BYTES // LOG_ENTRIES


async def mix(stage: Stage) -> list[Result]:
    """32 callers, each on its own task. One read in ten is the first after a change of the task.

    The caller makes the change itself, as the task's agent, and waits for its ack. The bare server
    changes the same entry by one update. The rates count reads.
    """
    tasks = await stage.create_tasks(_CALLERS, standalone=True)
    bare_tasks = await stage.create_tasks(_CALLERS)
    await stage.fill(bare_tasks, entries=LOG_ENTRIES, content_bytes=_CONTENT_BYTES)
    await together(
        [
            client.do(
                "open_writers",
                address=stage.ours.address,
                tokens=[task.token for task in tasks[number::CLIENTS]],
                entries=LOG_ENTRIES,
                content_bytes=_CONTENT_BYTES,
            )
            for number, client in enumerate(stage.clients)
        ]
    )
    rounds = await interleave(
        {
            "mix": _ours(stage, tasks, _READS_PER_CHANGE),
            "repeated": _ours(stage, tasks, 0),
            "bare": _bare(stage, bare_tasks),
        },
        stage.rounds,
        stage.cpu,
    )
    what = "snapshot read, 30 entries, 64 KB, 32 callers on 32 tasks, 10 % just changed"
    note = "each change is committed before the read, and is not counted as a call"
    return [
        compared(
            f"{what}, against one query and one update",
            rounds.compare("mix", "bare"),
            unit="calls/s",
            note=note,
        ),
        compared(
            f"{what}, against reads without changes",
            rounds.compare("mix", "repeated"),
            unit="calls/s",
            note=note,
        ),
    ]


async def written_task(stage: Stage) -> list[Result]:
    """32 callers on one task whose last entry changes 20 times a second, and on a quiet one."""
    written, quiet = await stage.create_tasks(2, standalone=True)
    seconds = stage.slice_seconds()
    async with workers(2) as (writer, keeper):
        for agent, task in ((writer, written), (keeper, quiet)):
            await agent.do(
                "open_writers",
                address=stage.ours.address,
                tokens=[task.token],
                entries=LOG_ENTRIES,
                content_bytes=_CONTENT_BYTES,
            )
            await until_active(stage, task)

        def reads(task: NewTask, source: pb.LogSource.ValueType) -> Contestant:
            callers = [[read_request(task, source=source)]] * _CALLERS
            return stage.load(stage.ours, GET_TASK_LOGS, callers)

        def meanwhile(reading: Contestant) -> Contestant:
            async def run() -> float:
                writing = asyncio.create_task(
                    writer.do("write", rate=_CHANGES_PER_SECOND, seconds=seconds)
                )
                try:
                    rate = await reading.run()
                    await writing
                    return rate
                finally:
                    writing.cancel()

            return Contestant(run, reading.warm_up, reading.server)

        sources = {"snapshot": pb.LOG_SOURCE_SNAPSHOT, "live": pb.LOG_SOURCE_LIVE}
        contestants = {f"{name} quiet": reads(quiet, one) for name, one in sources.items()}
        contestants |= {
            f"{name} written": meanwhile(reads(written, one)) for name, one in sources.items()
        }
        rounds = await interleave(contestants, stage.rounds, stage.cpu)
    return [
        compared(
            f"{name} read, 32 callers on one task that changes {_CHANGES_PER_SECOND} times a"
            " second, against a quiet one",
            rounds.compare(f"{name} written", f"{name} quiet"),
            unit="calls/s",
        )
        for name in sources
    ]


def _ours(stage: Stage, tasks: list[NewTask], reads_per_change: int) -> Contestant:
    def arguments(share: list[NewTask]) -> dict[str, Any]:
        requests = [read_request(task, source=pb.LOG_SOURCE_SNAPSHOT) for task in share]
        return {
            "address": stage.ours.address,
            "method": GET_TASK_LOGS,
            "requests": encoded(requests),
            "reads_per_change": reads_per_change,
        }

    return _contestant(stage, "mix", tasks, arguments, stage.ours)


def _bare(stage: Stage, tasks: list[NewTask]) -> Contestant:
    def arguments(share: list[NewTask]) -> dict[str, Any]:
        return {
            "address": stage.bare.address,
            "method": "/bench.Bare/Log",
            "tasks": [task.id.hex for task in share],
            "ordinal": LOG_ENTRIES - 1,
            "content_bytes": _CONTENT_BYTES,
            "reads_per_change": _READS_PER_CHANGE,
        }

    return _contestant(stage, "mix_bare", tasks, arguments, stage.bare)


def _contestant(
    stage: Stage,
    command: str,
    tasks: list[NewTask],
    arguments: Callable[[list[NewTask]], dict[str, Any]],
    server: Any,
) -> Contestant:
    async def run(**until: float) -> float:
        results = await together(
            [
                client.do(command, **arguments(tasks[number::CLIENTS]), **until)
                for number, client in enumerate(stage.clients)
            ]
        )
        return float(sum(result["reads"] / result["seconds"] for result in results))

    return Contestant(
        run=lambda: run(seconds=stage.slice_seconds()),
        warm_up=lambda: run(calls_each=2),
        server=server,
    )
