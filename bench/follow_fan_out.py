"""Fan-out: each change of one task to 300 followers, and of 300 tasks to one follower each."""

from __future__ import annotations

import base64

from bench import bare_fan_out
from bench.bare_fan_out import READY
from bench.clients import Worker, workers
from bench.follow_latency import follow_request
from bench.followers import CAUGHT_UP, FOLLOW
from bench.processes import Server
from bench.result import Result, compared
from bench.rounds import Contestant, interleave
from bench.side import Side, all_do
from bench.stage import NewTask, Stage

_FOLLOWERS, _QUICK_FOLLOWERS = 300, 60
_CONTENT_BYTES = 500
# One change is sent to the followers while the next one is committed.
_WINDOW = 2
# Before each slice.
_WARM_UP_CHANGES = 10


class _OneTask:
    """A publisher in one client process, and followers in all others."""

    def __init__(self, stage: Stage, publisher: Worker, name: str) -> None:
        self._publisher = Side(publisher, name)
        self._followers = [Side(client, name) for client in stage.clients]
        self._seconds = stage.slice_seconds()
        self._each = _count(stage) // len(self._followers)
        self.message_bytes = 0

    async def open_ours(self, address: str, task: NewTask) -> None:
        await self._publisher.do(
            "open_ours", address=address, tokens=[task.token], content_bytes=_CONTENT_BYTES
        )
        await self._follow(address, FOLLOW, follow_request(task), CAUGHT_UP)
        # Our messages are known now: make the bare ones as long.
        await self.run(changes=1)

    async def open_bare(self, address: str, message_bytes: int) -> None:
        await self._publisher.do(
            "open_bare", address=address, topics=["one"], message_bytes=message_bytes
        )
        request = base64.b64encode(b"one").decode()
        await self._follow(address, bare_fan_out.FOLLOW, request, READY)

    def contestant(self, server: Server) -> Contestant:
        """Return what is measured: the messages that arrive per second."""
        return Contestant(
            run=lambda: self.run(seconds=self._seconds),
            warm_up=lambda: self.run(changes=_WARM_UP_CHANGES),
            server=server,
        )

    async def run(self, **until: float) -> float:
        """Return the messages that arrived per second."""
        done = await self._publisher.do(
            "publish_to_all", window=_WINDOW, processes=len(self._followers), **until
        )
        counts = await all_do(self._followers, "counts")
        self.message_bytes = counts[0]["message_bytes"]
        return float(sum(one["messages"] for one in counts) / done["seconds"])

    async def close(self) -> None:
        await all_do(self._followers, "leave")
        await self._publisher.do("close")

    async def _follow(self, address: str, method: str, request: str, ready: bytes) -> None:
        await all_do(
            self._followers,
            "follow",
            address=address,
            method=method,
            requests=[request] * self._each,
            ready=ready.hex(),
            receipts_port=await self._publisher.do("listen"),
        )


async def one_task(stage: Stage) -> list[Result]:
    """300 followers of one task, each with its own connection."""
    (task,) = await stage.create_tasks(1, standalone=True)
    async with workers(1) as (publisher,):
        ours, bare = (_OneTask(stage, publisher, name) for name in ("one", "bare one"))
        try:
            await ours.open_ours(stage.ours.address, task)
            await bare.open_bare(stage.bare.address, ours.message_bytes)
            rounds = await interleave(
                {"ours": ours.contestant(stage.ours), "bare": bare.contestant(stage.bare)},
                stage.rounds,
                stage.cpu,
            )
        finally:
            await ours.close()
            await bare.close()
    row = compared(
        f"fan-out to {_count(stage)} followers of one task, against a bare fan-out",
        rounds.compare("ours", "bare"),
        unit="messages/s",
        target=0.85,
        note=f"{ours.message_bytes} bytes a message, to a connection each;"
        f" at most {_WINDOW} changes under way, and ours are committed first",
    )
    return [row]


class _ManyTasks:
    """Publishers, each with its follower in the same process."""

    def __init__(self, stage: Stage, name: str, tasks: list[NewTask]) -> None:
        self._sides = [Side(client, name) for client in stage.clients]
        self._shares = [tasks[n :: len(self._sides)] for n in range(len(self._sides))]
        self._seconds = stage.slice_seconds()
        self.message_bytes = 0

    async def open_ours(self, address: str) -> None:
        for side, tasks in zip(self._sides, self._shares, strict=True):
            await side.do(
                "open_ours",
                address=address,
                tokens=[task.token for task in tasks],
                content_bytes=_CONTENT_BYTES,
            )
            requests = [follow_request(task) for task in tasks]
            await _follow(side, address, FOLLOW, requests, CAUGHT_UP)
        await self.run(changes_each=1)

    async def open_bare(self, address: str, message_bytes: int) -> None:
        for side, tasks in zip(self._sides, self._shares, strict=True):
            topics = [str(task.id) for task in tasks]
            await side.do("open_bare", address=address, topics=topics, message_bytes=message_bytes)
            requests = [base64.b64encode(topic.encode()).decode() for topic in topics]
            await _follow(side, address, bare_fan_out.FOLLOW, requests, READY)

    def contestant(self, server: Server) -> Contestant:
        """Return what is measured: the messages that arrive per second."""
        return Contestant(
            run=lambda: self.run(seconds=self._seconds),
            warm_up=lambda: self.run(changes_each=1),
            server=server,
        )

    async def run(self, **until: float) -> float:
        """Return the messages that arrived per second."""
        done = await all_do(self._sides, "publish_in_pairs", **until)
        counts = await all_do(self._sides, "counts")
        self.message_bytes = counts[0]["message_bytes"]
        both = zip(counts, done, strict=True)
        return float(sum(one["messages"] / time["seconds"] for one, time in both))

    async def close(self) -> None:
        await all_do(self._sides, "leave")
        await all_do(self._sides, "close")


async def many_tasks(stage: Stage) -> list[Result]:
    """300 tasks with one follower each, on its own connection.

    Each publisher sends its next change when its follower has the one before.
    """
    count = _count(stage)
    tasks = await stage.create_tasks(count, standalone=True)
    ours, bare = (_ManyTasks(stage, name, tasks) for name in ("many", "bare many"))
    try:
        await ours.open_ours(stage.ours.address)
        await bare.open_bare(stage.bare.address, ours.message_bytes)
        rounds = await interleave(
            {"ours": ours.contestant(stage.ours), "bare": bare.contestant(stage.bare)},
            stage.rounds,
            stage.cpu,
        )
    finally:
        await ours.close()
        await bare.close()
    row = compared(
        f"{count} followers of {count} tasks, against the same without a store",
        rounds.compare("ours", "bare"),
        unit="messages/s",
        note="each task's next change when its follower has the one before",
    )
    return [row]


def _count(stage: Stage) -> int:
    return _QUICK_FOLLOWERS if stage.quick else _FOLLOWERS


async def _follow(side: Side, address: str, method: str, requests: list[str], ready: bytes) -> None:
    await side.do("follow", address=address, method=method, requests=requests, ready=ready.hex())
