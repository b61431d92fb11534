"""The bytes on the wire of a follow while an answer grows, with and without deltas."""

from __future__ import annotations

import base64
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from bench.agents import Agent, append_bytes, own_channel
from bench.cpu import CpuCost
from bench.follow_latency import follow_request
from bench.followers import CAUGHT_UP, FOLLOW, Follower
from bench.processes import port_of
from bench.result import Result
from bench.stage import NewTask, Stage
from bench.stamp import stamp
from bench.text import words
from tasklogs import delta_codec
from tasklogs.log.content import Content
from tasklogs.log.delta import Delta
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tests.support.fakes.faulty_proxy import Direction, FaultyProxy

_STEP_BYTES = 1000


@dataclass(frozen=True)
class _Growth:
    """The bytes on the wire of a follow with deltas and of one without, and a change's CPU."""

    with_deltas: int
    without: int
    cost: CpuCost


async def growing_answer(stage: Stage) -> list[Result]:
    """An answer grows to 100 KB, and one to 1 MB, in 1 KB steps; every step reaches both."""
    rows: list[Result] = []
    for steps, target in ((100, 1.1), (200 if stage.quick else 1000, None)):
        growth = await _grow(stage, steps)
        what = f"an answer that grows to {steps} KB in 1 KB steps: bytes on the follow"
        rows += [
            _row(f"{what} with deltas", growth.with_deltas, steps, growth.cost, target=target),
            _row(f"{what} without deltas", growth.without, steps, growth.cost),
        ]
    return rows


async def _grow(stage: Stage, steps: int) -> _Growth:
    (task,) = await stage.create_tasks(1, standalone=True)
    port = port_of(stage.ours)
    async with FaultyProxy(port) as deltas, FaultyProxy(port) as whole, AsyncExitStack() as stack:
        agent = await Agent.connect(stage.ours.address, task.token)
        stack.push_async_callback(agent.close)
        followers = [
            await _following(stack, wire, task, deltas=wire is deltas) for wire in (deltas, whole)
        ]
        before = [_received(wire) for wire in (deltas, whole)]
        content, used = Content(b""), stage.cpu(stage.ours)
        for step in range(1, steps + 1):
            await agent.append(_step(step, content))
            for follower in followers:
                await follower.reaches(step)
        cost = (stage.cpu(stage.ours) - used).per(steps)
        return _Growth(_received(deltas) - before[0], _received(whole) - before[1], cost)


async def _following(
    stack: AsyncExitStack, wire: FaultyProxy, task: NewTask, *, deltas: bool
) -> Follower:
    channel = await stack.enter_async_context(own_channel(wire.address))
    call: Any = channel.unary_stream(FOLLOW)
    follower = Follower(call(base64.b64decode(follow_request(task, deltas=deltas))))
    stack.callback(follower.close)
    await follower.ready(CAUGHT_UP)
    return follower


def _received(wire: FaultyProxy) -> int:
    return wire.passed_bytes[Direction.TO_CALLER]


def _step(step: int, content: Content) -> bytes:
    """Encode the append of a step, and let `content` grow by it."""
    mark = stamp(step)
    text = words(_STEP_BYTES - len(mark), seed=step % 97) + mark
    delta = Delta.keeping(len(content), text.encode())
    content.patch(delta)
    append = pb.LogAppend(sequence=step, open_epoch=step == 1)
    if step == 1:
        append.entries.add(id=1, type=types.TASK_LOG_TYPE_OUTPUT, content=text)
        append.entries[0].time.seconds = 1_760_000_001
        return append_bytes(
            step,
            open_epoch=True,
            entries=pb.LogAppend(entries=append.entries).SerializeToString(),
        )
    append.tail.id = 1
    append.tail.time.seconds = 1_760_000_000 + step
    append.tail.time.nanos = 123_456_000
    append.tail.content.CopyFrom(delta_codec.encode(delta, content.crc32))
    return pb.AgentMessage(append=append).SerializeToString()


def _row(
    what: str, received: int, steps: int, cost: CpuCost, *, target: float | None = None
) -> Result:
    length = steps * _STEP_BYTES
    ratio = received / length
    return Result(
        what=what,
        ours=received,
        bare=length,
        unit="bytes",
        ratio=ratio,
        ratios=[ratio],
        target=target,
        at_most=True,
        note="all that the server sends to one follow, as HTTP/2; CPU per change for both",
        cpu=cost,
    )
