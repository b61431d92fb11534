"""Writes: entries committed at full speed, and the cost of a growing answer."""

from __future__ import annotations

import statistics
import zlib
from typing import Any

import asyncpg

from bench.agents import Agent, append_bytes
from bench.clients import together
from bench.cpu import NOTHING, CpuCost
from bench.processes import Server, port_of
from bench.result import Result, compared
from bench.rounds import Contestant, interleave
from bench.stage import CLIENTS, NewTask, Stage
from bench.text import noise, words
from tasklogs import delta_codec
from tasklogs.log import delta
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tests.support.fakes.faulty_proxy import Direction, FaultyProxy

_SESSIONS = 100
_ENTRY_BYTES = 500
_ENTRIES_PER_APPEND = 100
_UPSERT_ROWS = 1000
_STEP_BYTES = 1000
_STEPS = 100
# Each step, and the one that seals.
_CHANGES = _STEPS + 1
_ANSWER_BYTES = _STEP_BYTES * _STEPS
_GROWING = "an answer that grows to 100 KB in 1 KB steps"


async def committed_entries(stage: Stage) -> list[Result]:
    """100 sessions. Each sends its next append after the ack of the one before."""
    tasks = await stage.create_tasks(_SESSIONS, standalone=True)
    for number, client in enumerate(stage.clients):
        tokens = [task.token for task in tasks[number::CLIENTS]]
        await client.do("open_agents", address=stage.ours.address, tokens=tokens)
    await stage.clients[0].do("open_upserts", dsn=stage.dsn)
    seconds = 0.3 if stage.quick else 1.0

    async def ours(**until: float) -> float:
        results = await together(
            [
                client.do(
                    "flood",
                    entries_per_append=_ENTRIES_PER_APPEND,
                    content_bytes=_ENTRY_BYTES,
                    **until,
                )
                for client in stage.clients
            ]
        )
        return float(sum(result["entries"] / result["seconds"] for result in results))

    async def bare(**until: float) -> float:
        result = await stage.clients[0].do(
            "upsert", rows=_UPSERT_ROWS, tasks=_SESSIONS, content_bytes=_ENTRY_BYTES, **until
        )
        return float(result["entries"] / result["seconds"])

    # Both warm up with as many entries.
    batches = _SESSIONS * _ENTRIES_PER_APPEND // _UPSERT_ROWS
    contestants = {
        "ours": Contestant(
            run=lambda: ours(seconds=seconds),
            warm_up=lambda: ours(appends_each=1),
            server=stage.ours,
        ),
        "bare": Contestant(
            run=lambda: bare(seconds=seconds), warm_up=lambda: bare(batches=batches)
        ),
    }
    try:
        rounds = await interleave(contestants, stage.rounds, stage.cpu)
    finally:
        for client in stage.clients:
            await client.do("close_agents")
    return [
        compared(
            "committed entries, 500 bytes, 100 sessions, against an upsert of 1,000 rows",
            rounds.compare("ours", "bare"),
            unit="entries/s",
            target=0.45,
        )
    ]


async def growing_answer(stage: Stage) -> list[Result]:
    """An answer grows to 100 KB in 1 KB steps. Each step is committed, and then it is sealed.

    Nothing else writes to this Postgres meanwhile: all its databases share its WAL.
    """
    answers = {"prose": words(_ANSWER_BYTES), "noise": noise(_ANSWER_BYTES)}
    measured: dict[str, list[_Growth]] = {name: [] for name in answers}
    tasks = await stage.create_tasks(stage.rounds * len(answers), standalone=True)
    observer = await asyncpg.connect(stage.dsn)
    used = NOTHING
    try:
        for _ in range(stage.rounds):
            for name, answer in answers.items():
                before = stage.cpu(stage.ours)
                measured[name].append(await _grow(stage.ours, observer, tasks.pop(), answer))
                used += stage.cpu(stage.ours) - before
    finally:
        await observer.close()
    cost = used.per(stage.rounds * len(answers) * _CHANGES)
    return [
        _wire(measured["prose"], cost),
        *(_wal(f"{_GROWING}: WAL, {name}", growths) for name, growths in measured.items()),
    ]


class _Growth:
    """What one answer cost, in bytes."""

    def __init__(self, stream: int, wal: int, full_pages: int) -> None:
        self.stream = stream
        self.wal = wal
        self.full_pages = full_pages


async def _grow(server: Server, observer: Any, task: NewTask, answer: str) -> _Growth:
    async with FaultyProxy(port_of(server)) as wire:
        agent = await Agent.connect(wire.address, task.token)
        try:
            return await _grow_through(wire, agent, observer, answer)
        finally:
            await agent.close()


async def _grow_through(wire: FaultyProxy, agent: Agent, observer: Any, answer: str) -> _Growth:
    prompt = pb.LogAppend()
    _add(prompt, 0, types.TASK_LOG_TYPE_INPUT, "go")
    message = append_bytes(1, open_epoch=True, entries=prompt.SerializeToString())
    await agent.append(message)
    await observer.execute("CHECKPOINT")
    before = await _wal_position(observer)
    sent_before = wire.passed_bytes[Direction.TO_TARGET]
    for message in _steps(answer):
        await agent.append(message)
    seal = pb.LogAppend()
    _add(seal, 2, types.TASK_LOG_TYPE_INPUT, "thanks")
    message = append_bytes(agent.sequence + 1, open_epoch=False, entries=seal.SerializeToString())
    await agent.append(message)
    after = await _wal_position(observer)
    stream = wire.passed_bytes[Direction.TO_TARGET] - sent_before
    return _Growth(stream, *await _wal_between(observer, before, after))


def _steps(answer: str) -> list[bytes]:
    """Encode the appends that make the answer: the first one whole, then deltas of the agent."""
    first = pb.LogAppend()
    _add(first, 1, types.TASK_LOG_TYPE_OUTPUT, answer[:_STEP_BYTES])
    messages = [append_bytes(2, open_epoch=False, entries=first.SerializeToString())]
    content = answer.encode()
    for step in range(2, _STEPS + 1):
        shown, shows = content[: (step - 1) * _STEP_BYTES], content[: step * _STEP_BYTES]
        change = delta.diff(shown, shows)
        append = pb.LogAppend(sequence=step + 1)
        append.tail.id = 1
        append.tail.time.seconds = 1_760_000_001 + step
        append.tail.time.nanos = 123_456_000
        append.tail.content.CopyFrom(delta_codec.encode(change, zlib.crc32(shows)))
        messages.append(pb.AgentMessage(append=append).SerializeToString())
    return messages


def _add(append: pb.LogAppend, id_: int, type_: types.TaskLogType.ValueType, content: str) -> None:
    entry = append.entries.add(id=id_, type=type_, content=content)
    entry.time.seconds = 1_760_000_000 + id_


async def _wal_position(observer: Any) -> str:
    return str(await observer.fetchval("SELECT pg_current_wal_insert_lsn()::text"))


async def _wal_between(observer: Any, before: str, after: str) -> tuple[int, int]:
    """Return the bytes of WAL, and those of them that are images of full pages."""
    await observer.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
    row = await observer.fetchrow(
        """SELECT $2::text::pg_lsn - $1::text::pg_lsn AS bytes,
                  (SELECT sum(fpi_size)
                     FROM pg_get_wal_stats($1::text::pg_lsn, $2::text::pg_lsn)) AS full_pages""",
        before,
        after,
    )
    return int(row["bytes"]), int(row["full_pages"])


def _wire(growths: list[_Growth], cost: CpuCost) -> Result:
    figures = [growth.stream for growth in growths]
    ours = statistics.median(figures)
    return Result(
        what=f"{_GROWING}: bytes on the agent stream",
        ours=ours,
        bare=_ANSWER_BYTES,
        unit="bytes",
        ratio=ours / _ANSWER_BYTES,
        ratios=[figure / _ANSWER_BYTES for figure in figures],
        target=1.1,
        at_most=True,
        note="all that the agent sends, as HTTP/2; CPU per change",
        cpu=cost,
    )


def _wal(what: str, growths: list[_Growth]) -> Result:
    figures = [growth.wal for growth in growths]
    ours = statistics.median(figures)
    pages = statistics.median(growth.full_pages for growth in growths) / 1000
    return Result(
        what=what,
        ours=ours,
        bare=_ANSWER_BYTES,
        unit="bytes",
        ratio=ours / _ANSWER_BYTES,
        ratios=[figure / _ANSWER_BYTES for figure in figures],
        target=2.5,
        at_most=True,
        note=f"begun after a CHECKPOINT; {pages:.1f} KB of it are images of full pages",
    )
