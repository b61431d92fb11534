"""Prints the newest tasks, the last answer of each, and then what changes.

python watch_tasks.py 127.0.0.1:50051 --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import timedelta

from tasklogs import (
    EntriesChanged,
    Page,
    Reconnected,
    Reconnecting,
    RetryPolicy,
    StatusChanged,
    Task,
    TaskLogsClient,
    TaskLogType,
)
from tasklogs.errors import TaskLogsRpcError, TaskNotFound


async def last_answer(client: TaskLogsClient, task: Task) -> str:
    log = await client.get(
        task.id, tail=1, types=[TaskLogType.OUTPUT], timeout=timedelta(seconds=5)
    )
    return "".join([entry.content async for entry in log.entries()])


async def watch(client: TaskLogsClient, task: Task) -> None:
    def report(change: Reconnecting | Reconnected) -> None:
        print(f"{task.full_name}: {change}", file=sys.stderr)

    try:
        async for event in client.follow(task.id, tail=0, on_reconnect=report):
            match event:
                case StatusChanged(status=status):
                    print(f"{task.full_name}: {status.name}", flush=True)
                case EntriesChanged(changes=changes):
                    for change in changes:
                        text = change.entry.content if change.appended is None else change.appended
                        print(f"{task.full_name} #{change.entry.id}: {text}", flush=True)
                case _:
                    pass  # later versions may add events
    except TaskNotFound:
        print(f"{task.full_name}: deleted", flush=True)


async def watch_all(client: TaskLogsClient, tasks: Page[Task], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(watch(client, task))
    except TimeoutError:
        print(f"{seconds:g} s have passed")


async def main(address: str, seconds: float) -> int:
    client = TaskLogsClient(
        address, retry=RetryPolicy(attempts=3), metadata={"x-request-id": "watch-tasks"}
    )
    await client.connect()
    try:
        tasks = await anext(client.list_tasks(page_size=10).pages())
        for task in tasks:
            print(f"{task.full_name}: {await last_answer(client, task)}")
        if tasks.next_page_token is not None:
            print("there are more tasks")
        await watch_all(client, tasks, seconds)
    except TaskLogsRpcError as error:
        print(f"{error.code.name}: {error.message} ({error.reason})", file=sys.stderr)
        return 1
    finally:
        await client.close()
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.address, arguments.seconds)))
