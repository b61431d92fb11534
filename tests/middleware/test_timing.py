"""The time that a refusal takes does not reveal whether another user's task exists."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import product
from pathlib import Path

import pytest

from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as pb
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.authenticated import Metadata, guarded
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.server import MakeServer, Server

CALLS = 300
# If both calls take the same time, one of them takes longer in half of the pairs. With so many
# calls (standard deviation 0.024) the share practically never deviates by this much. One more
# statement makes it 0.9.
WITHIN = 0.12

Refused = Callable[[Server, str, Metadata], Awaitable[object]]


async def read(server: Server, task: str, caller: Metadata) -> object:
    request = logs_pb.GetTaskLogsRequest(task=task)
    return await refused(server.logs.GetTaskLogs(request, metadata=caller))


async def follow(server: Server, task: str, caller: Metadata) -> object:
    request = logs_pb.FollowTaskLogsRequest(task=task)
    return await refused(server.logs.FollowTaskLogs(request, metadata=caller).read())


async def get(server: Server, task: str, caller: Metadata) -> object:
    return await refused(server.tasks.GetTask(pb.GetTaskRequest(task=task), metadata=caller))


@pytest.mark.parametrize("call", [read, follow, get])
@pytest.mark.parametrize("by", ["id", "name"])
async def test_refusing_another_users_task_takes_as_long_as_refusing_no_task(
    make_server: MakeServer, tmp_path: Path, call: Refused, by: str
) -> None:
    async with guarded(make_server, tmp_path, calls_per_second=10**6) as guard:
        made = await guard.create("alice", "there", standalone=True)
        async with ScriptedAgent.connect(guard.server, made.agent_token) as agent:
            await agent.append(open_epoch=True, entries=[log_entry(0, "x" * 100_000)])
            await agent.acked(1)
            if by == "id":
                theirs, none = made.task.id, "6b1f5a3e-8a53-4c1b-9df3-0123456789ab"
            else:
                theirs, none = "alice/there", "alice/third"
            bob = guard.as_("bob")
            took: dict[str, list[float]] = {theirs: [], none: []}
            for turn in range(CALLS):
                # In turns, so that other load on the machine slows down both.
                for task in (theirs, none) if turn % 2 else (none, theirs):
                    begun = time.perf_counter()
                    await call(guard.server, task, bob)
                    took[task].append(time.perf_counter() - begun)
    share = how_often_longer(took[theirs], took[none])
    assert abs(share - 0.5) < WITHIN, f"another's task took longer in {share:.3f} of the pairs"


def how_often_longer(ones: Sequence[float], others: Sequence[float]) -> float:
    return sum(one > other for one, other in product(ones, others)) / (len(ones) * len(others))
