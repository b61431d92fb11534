"""I8 in random histories: a real server on a socket, a scripted agent, followers that come and go.

At the end every follower has what a reader reads, whatever happened to it. `View` checks each
message against the promises: revisions ascend, nothing comes twice without a change, and a delta
applies exactly to what this stream sent before.

Which rules may run depends only on this machine's own choices, never on what the server has done
so far. Otherwise hypothesis could not repeat the same choices.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import tasks_pb2, types_pb2
from tasklogs_server.store.log_changes import LogChanges
from tests.reads.follow_reader import Reader, reading
from tests.reads.follow_view import Key, View
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta, tail_pieces
from tests.support.fixtures.content_deltas import CUTS, Cuts, cut, result_of
from tests.support.fixtures.server import MakeServer, Server

T = TypeVar("T")

texts = st.text(max_size=20)
several = st.lists(texts, max_size=3)
# Seconds until the next step: enough for nothing, for one commit, or for everything to be read.
times = st.sampled_from([0.0, 0.0, 0.003, 0.01, 0.03])
_task_numbers = itertools.count()


@dataclass
class _Tail:
    id: int
    content: str


@dataclass
class _Follower:
    view: View
    deltas: bool
    stream: AsyncExitStack | None = None
    reader: Reader | None = None


class FollowMachine(RuleBasedStateMachine):
    """Each rule does one thing, and waits for nothing unless its docstring says so."""

    def __init__(self, runner: asyncio.Runner, server: Server) -> None:
        super().__init__()
        self._runner = runner
        self._server = server
        self._task = f"task-{next(_task_numbers)}"
        self._token = ""
        self._build = 0
        self._agent: ScriptedAgent | None = None
        self._agent_stack = AsyncExitStack()
        self._next_id = 0
        self._epoch = 0
        self._tail: _Tail | None = None
        self._followers: list[_Follower] = []

    @initialize()
    def create(self) -> None:
        """Create a task whose agent has shown an entry, and a follower of that task."""
        made = self._run(self._server.create_task(self._task))
        self._token = made.agent_token
        self.resume()
        self.open_epoch(["hello", "w"], 0.0)
        self.follow(deltas=True, tail=None)

    @precondition(lambda self: self._agent is None)
    @rule()
    def resume(self) -> None:
        """Start a build and connect its agent."""
        self._build += 1
        self._report(types_pb2.BUILD_TRANSITION_START)
        self._run(self._connect())

    @precondition(lambda self: self._agent is not None)
    @rule(in_order=st.booleans())
    def pause(self, in_order: bool) -> None:
        """Let the agent say goodbye, or kill its workspace."""
        self._run(self._disconnect(in_order=in_order))
        self._build += 1
        self._report(types_pb2.BUILD_TRANSITION_STOP)

    @precondition(lambda self: self._agent is not None)
    @rule()
    def lose_connection(self) -> None:
        """Cut the agent's connection. Unacknowledged messages may be lost."""
        self._run(self._disconnect(in_order=False))
        self._run(self._connect())

    @precondition(lambda self: self._agent is not None)
    @rule(contents=several, time=times)
    def open_epoch(self, contents: list[str], time: float) -> None:
        """Let the task app start a new conversation."""
        self._epoch += 1
        self._next_id, self._tail = 0, None
        self._append(time, open_epoch=True, entries=self._new(contents))

    @precondition(lambda self: self._agent is not None)
    @rule(contents=st.lists(texts, min_size=1, max_size=4), time=times)
    def add(self, contents: list[str], time: float) -> None:
        """Append entries."""
        begins = self._epoch == 0
        self._epoch = max(self._epoch, 1)
        self._append(time, open_epoch=begins, entries=self._new(contents))

    @precondition(lambda self: self._agent is not None)
    @rule(
        share=st.one_of(st.just(1.0), st.floats(0, 1)),
        texts_=st.lists(texts, min_size=1, max_size=5),
        time=times,
    )
    def grow(self, share: float, texts_: list[str], time: float) -> None:
        """Grow or partly rewrite the tail, with or without time for commits in between."""
        for text in texts_:
            tail = self._tail
            if tail is None:
                return
            kept = tail.content[: round(share * len(tail.content))]
            self._tail = _Tail(tail.id, kept + text)
            self._append(time, tail=tail_delta(tail.id, len(kept.encode()), text))

    @precondition(lambda self: self._agent is not None)
    @rule(changes=st.lists(CUTS, min_size=1, max_size=4), time=times)
    def rearrange(self, changes: list[Cuts], time: float) -> None:
        """Make the tail of pieces of itself and texts, with or without time for commits."""
        for cuts in changes:
            tail = self._tail
            if tail is None:
                return
            before = tail.content.encode()
            pieces = cut(before, cuts)
            self._tail = _Tail(tail.id, result_of(before, pieces).decode())
            self._append(time, tail=tail_pieces(tail.id, pieces))

    @precondition(lambda self: self._agent is not None)
    @rule(text=texts, time=times)
    def redraw(self, text: str, time: float) -> None:
        """Replace the tail."""
        if self._tail is not None:
            self._tail = _Tail(self._tail.id, text)
            self._append(time, entries=[log_entry(self._tail.id, text)])

    @precondition(lambda self: self._agent is not None)
    @rule(takes_id_again=st.booleans(), contents=several, time=times)
    def withdraw(self, takes_id_again: bool, contents: list[str], time: float) -> None:
        """Withdraw the tail, and perhaps append entries."""
        if self._tail is None:
            return
        self._next_id = self._tail.id + (0 if takes_id_again else 1)
        self._tail = None
        self._append(time, withdraw_tail=True, entries=self._new(contents))

    @precondition(lambda self: self._agent is not None)
    @rule()
    def wait_for_acks(self) -> None:
        """Wait until everything is committed."""
        if self._agent is not None and self._agent.sent:
            self._run(self._agent.acked())

    @rule(deltas=st.booleans(), tail=st.one_of(st.none(), st.integers(0, 3)))
    def follow(self, deltas: bool, tail: int | None) -> None:
        """Add a follower."""
        if len(self._followers) < 4:
            follower = _Follower(View(), deltas)
            self._followers.append(follower)
            self._run(self._begin(follower, tail=tail))

    @rule(deltas=st.booleans())
    def read_then_follow(self, deltas: bool) -> None:
        """Add a follower that begins where a read ended."""
        if len(self._followers) < 4:
            follower = _Follower(View(), deltas)
            self._followers.append(follower)
            self._run(self._begin(follower, cursor=self._run(self._read()).cursor))

    @precondition(lambda self: self._followers)
    @rule(index=st.integers(0, 3), deltas=st.booleans(), time=times)
    def leave_and_resume(self, index: int, deltas: bool, time: float) -> None:
        """Cut a follower off, perhaps after some more messages, and let it come back."""
        follower = self._followers[index % len(self._followers)]
        self._run(asyncio.sleep(time))
        self._run(self._leave(follower))
        follower.deltas = deltas
        if follower.view.cursor:
            self._run(self._begin(follower, cursor=follower.view.cursor))
        else:
            self._run(self._begin(follower))

    @precondition(lambda self: self._followers)
    @rule(index=st.integers(0, 3), reads=st.booleans())
    def stall_or_read_on(self, index: int, reads: bool) -> None:
        """Let a follower stop reading, or read on."""
        reader = self._followers[index % len(self._followers)].reader
        assert reader is not None
        if reads:
            reader.reads_on.set()
        else:
            reader.reads_on.clear()

    @precondition(lambda self: self._followers)
    @rule(time=times)
    def let_time_pass(self, time: float) -> None:
        """Give the work in progress some time."""
        self._run(asyncio.sleep(time))

    def teardown(self) -> None:
        """Let every follower read to the end. Each must have what a reader reads."""
        self._run(self._finish())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    @property
    def _name(self) -> str:
        return f"local/{self._task}"

    def _report(self, transition: types_pb2.BuildTransition.ValueType) -> None:
        self._run(
            _reported(
                self._server,
                tasks_pb2.ReportBuildRequest(
                    task=self._name,
                    build_number=self._build,
                    transition=transition,
                    job_status=types_pb2.JOB_STATUS_SUCCEEDED,
                ),
            )
        )

    def _append(self, time: float, **what: Any) -> None:
        assert self._agent is not None
        self._run(self._agent.append(**what))
        self._run(asyncio.sleep(time))

    def _new(self, contents: list[str]) -> list[types_pb2.TaskLogEntry]:
        made = [log_entry(self._next_id + index, text) for index, text in enumerate(contents)]
        self._next_id += len(made)
        if made:
            self._tail = _Tail(made[-1].id, made[-1].content)
        return made

    async def _connect(self) -> None:
        self._agent_stack = AsyncExitStack()
        self._agent = await self._agent_stack.enter_async_context(
            ScriptedAgent.connect(self._server, self._token)
        )
        self._agent.answer_syncs()
        await self._agent.report()
        # The store's position may be before what the agent sent.
        read = await self._read(tail=1)
        self._epoch = read.epoch
        last = read.logs[0] if read.logs else None
        self._next_id = 0 if last is None else last.id + 1
        has_tail = last is not None and self._agent.welcome.HasField("tail")
        self._tail = _Tail(last.id, last.content) if has_tail and last is not None else None
        self._agent.tail = last.content.encode() if last is not None else b""

    async def _disconnect(self, *, in_order: bool) -> None:
        assert self._agent is not None
        if in_order:
            ended = await self._agent.goodbye()
            assert ended.code is grpc.StatusCode.OK
        await self._agent_stack.aclose()
        self._agent = None

    async def _read(self, **how: Any) -> pb.GetTaskLogsResponse:
        return await self._server.logs.GetTaskLogs(
            pb.GetTaskLogsRequest(task=self._name, source=pb.LOG_SOURCE_SNAPSHOT, **how)
        )

    async def _begin(self, follower: _Follower, **how: Any) -> None:
        call = self._server.logs.FollowTaskLogs(
            pb.FollowTaskLogsRequest(
                task=self._name, source=pb.LOG_SOURCE_SNAPSHOT, deltas=follower.deltas, **how
            )
        )
        follower.stream = AsyncExitStack()
        follower.stream.callback(call.cancel)
        follower.reader = await follower.stream.enter_async_context(
            reading(aiter(call), follower.view)
        )

    async def _leave(self, follower: _Follower) -> None:
        assert follower.stream is not None
        await follower.stream.aclose()
        assert follower.reader is not None
        assert follower.reader.error is None, follower.reader.error

    async def _finish(self) -> None:
        if self._agent is not None and self._agent.sent:
            await self._agent.acked()
        task = await self._server.tasks.GetTask(tasks_pb2.GetTaskRequest(task=self._name))
        for follower in self._followers:
            assert follower.reader is not None
            follower.reader.reads_on.set()
            await follower.reader.heard("caught_up")
            await follower.reader.reached(task.log.revision)
            await self._leave(follower)
        await self._agent_stack.aclose()
        stored = await self._stored(task.log.epoch)
        for follower in self._followers:
            follower.view.check(stored)

    async def _stored(self, epochs: int) -> dict[Key, types_pb2.TaskLogEntry]:
        return {
            (epoch, one.id): one
            for epoch in range(1, epochs + 1)
            for one in (await self._read(epoch=epoch)).logs
        }


async def _reported(server: Server, request: tasks_pb2.ReportBuildRequest) -> None:
    await server.tasks.ReportBuild(request)


def test_every_follower_ends_with_what_a_reader_reads(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small pages: a follower that lags needs several, and the log changes between them.
    monkeypatch.setitem(cast("dict[str, Any]", LogChanges.since.__kwdefaults__), "rows", 3)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server = runner.run(stack.enter_async_context(make_server(agent_connects_at_once=1000)))

        class Machine(FollowMachine):
            def __init__(self) -> None:
                super().__init__(runner, server)

        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=25,
                    stateful_step_count=40,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(stack.aclose())
