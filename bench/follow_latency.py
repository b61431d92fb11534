"""The time from a change in the task app to the follower, in milliseconds."""

from __future__ import annotations

import base64
import statistics
from bisect import bisect_left
from dataclasses import dataclass, field

from bench.cpu import NOTHING, CpuCost, CpuSeconds
from bench.followers import CAUGHT_UP, FOLLOW
from bench.result import Result
from bench.side import Side
from bench.stage import NewTask, Stage
from tasklogs.v1 import task_logs_pb2

_TASKS = 100
_MAX_ROUNDS = 5
_WHAT = f"change in the task app to the follower, {_TASKS} tasks"


def follow_request(task: NewTask, *, deltas: bool = True) -> str:
    """Encode a FollowTaskLogsRequest (base64) for all later changes, without stored entries."""
    request = task_logs_pb2.FollowTaskLogsRequest(task=str(task.id), tail=0, deltas=deltas)
    return base64.b64encode(request.SerializeToString()).decode()


async def typing(stage: Stage) -> list[Result]:
    """100 answers grow at 10 changes/s. Agents are in one client process, followers in another."""
    measured = await _latencies(stage, rate=10, redraws=False)
    what = f"{_WHAT} at 10 changes/s"
    return [
        _row(f"{what}: median", measured, 50, target=5),
        _row(f"{what}: 99th percentile", measured, 99, target=50),
    ]


async def redrawing(stage: Stage) -> list[Result]:
    """The same for 100 screens that redraw at 40 changes/s."""
    measured = await _latencies(stage, rate=40, redraws=True)
    what = f"{_WHAT} at 40 changes/s (redraws)"
    return [
        _row(f"{what}: median", measured, 50),
        _row(f"{what}: 99th percentile", measured, 99, target=100),
    ]


@dataclass
class _Latencies:
    """Each round's sorted milliseconds, and the CPU time of one change."""

    rounds: list[list[float]] = field(default_factory=list)
    used: CpuSeconds = NOTHING

    @property
    def cost(self) -> CpuCost:
        return self.used.per(sum(map(len, self.rounds)))


async def _latencies(stage: Stage, *, rate: float, redraws: bool) -> _Latencies:
    makers, readers = (Side(client, "latency") for client in stage.clients)
    tasks = await stage.create_tasks(_TASKS, standalone=True)
    address = stage.ours.address
    seconds = 0.5 if stage.quick else 3.0
    measured = _Latencies()
    try:
        tokens = [task.token for task in tasks]
        await makers.do("open_typing", address=address, tokens=tokens)
        await readers.do(
            "follow",
            address=address,
            method=FOLLOW,
            requests=[follow_request(task) for task in tasks],
            ready=CAUGHT_UP.hex(),
        )
        # The first round warms up and does not count.
        for number in range(1 + (1 if stage.quick else min(stage.rounds, _MAX_ROUNDS))):
            before = stage.cpu(stage.ours)
            made = await makers.do("type", rate=rate, seconds=seconds, redraws=redraws)
            last = [one["first"] + len(one["times"]) - 1 for one in made]
            arrived = await readers.do("collect", numbers=last)
            if number:
                measured.used += stage.cpu(stage.ours) - before
                measured.rounds.append(
                    sorted(
                        late
                        for one, arrivals in zip(made, arrived, strict=True)
                        for late in late_by(one["first"], one["times"], arrivals)
                    )
                )
    finally:
        await readers.do("leave")
        await makers.do("close")
    return measured


def late_by(first: int, times: list[int], arrivals: list[tuple[int, int]]) -> list[float]:
    """Return the milliseconds that each change took. The changes are numbered from `first`.

    A change has arrived with the first message that has its number or a later one.
    """
    numbers = [number for _, number in arrivals]
    return [
        (arrivals[bisect_left(numbers, first + index)][0] - made) / 1e6
        for index, made in enumerate(times)
    ]


def _row(
    what: str, measured: _Latencies, percentile: int, *, target: float | None = None
) -> Result:
    figures = [one[min(len(one) - 1, len(one) * percentile // 100)] for one in measured.rounds]
    return Result(
        what=what,
        ours=statistics.median(figures),
        unit="ms",
        ratios=figures,
        target=target,
        at_most=True,
        note=f"{len(measured.rounds[0]):,} changes a round; the spread is of our ms, by round",
        cpu=measured.cost,
    )
