"""A database that was restored from an earlier backup behaves as docs/operations.md says."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.postgres.cluster import cluster_directory
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.server import MakeServer, Server

SNAPSHOT = pb.GetTaskLogsRequest(task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT)


async def contents(server: Server) -> list[str]:
    return [entry.content for entry in (await server.logs.GetTaskLogs(SNAPSHOT)).logs]


async def follow(server: Server, cursor: str) -> object:
    call = server.logs.FollowTaskLogs(
        pb.FollowTaskLogsRequest(task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT, cursor=cursor)
    )
    first = await anext(aiter(call))
    call.cancel()
    return first


@pytest.mark.parametrize("kept", [1, 2])
async def test_agents_send_what_the_backup_lacks_and_later_cursors_are_refused(
    make_server: MakeServer, postgres_server: PostgresServer, tmp_path: Path, kept: int
) -> None:
    backup = tmp_path / "backup"
    dsn = postgres_server.dsn
    async with make_server(dsn()) as server:
        token = (await server.create_task("demo")).agent_token
        async with ScriptedAgent.connect(server, token) as agent:
            entries = [log_entry(number, f"{number}") for number in range(kept)]
            await agent.append(entries, open_epoch=True)
            await agent.acked()
            await agent.goodbye()
        kept_cursor = (await server.logs.GetTaskLogs(SNAPSHOT)).cursor
    postgres_server.stop()
    shutil.copytree(postgres_server.data_dir, backup)

    postgres_server.start()
    async with make_server(dsn()) as server:
        async with ScriptedAgent.connect(server, token) as agent:
            await agent.append([log_entry(kept, "after the backup")])
            await agent.acked()
        lost_cursor = (await server.logs.GetTaskLogs(SNAPSHOT)).cursor
    postgres_server.stop()
    shutil.rmtree(postgres_server.data_dir)
    shutil.copytree(backup, postgres_server.data_dir)

    postgres_server.start()
    async with make_server(dsn()) as server:
        refusal = await refused(follow(server, lost_cursor))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.OUT_OF_RANGE,
            "CURSOR_EXPIRED",
        )
        assert await follow(server, kept_cursor) is not None
        async with ScriptedAgent.connect(server, token) as agent:
            assert agent.welcome.entries == kept
            await agent.append([log_entry(kept, "after the backup")])
            await agent.acked()
        assert await contents(server) == [*(f"{n}" for n in range(kept)), "after the backup"]


async def test_a_restored_copy_that_begins_a_timeline_refuses_later_cursors_after_it_has_grown(
    make_server: MakeServer, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    backup, dsn = tmp_path / "backup", postgres_server.dsn
    async with make_server(dsn()) as server:
        token = (await server.create_task("demo")).agent_token
        async with ScriptedAgent.connect(server, token) as agent:
            await agent.append([log_entry(0, "0")], open_epoch=True)
            await agent.acked()
            await agent.goodbye()
        kept_cursor = (await server.logs.GetTaskLogs(SNAPSHOT)).cursor
    postgres_server.stop()
    shutil.copytree(postgres_server.data_dir, backup)

    postgres_server.start()
    async with make_server(dsn()) as server:
        async with ScriptedAgent.connect(server, token) as agent:
            await agent.append([log_entry(1, "after the backup")])
            await agent.acked()
        lost_cursor = (await server.logs.GetTaskLogs(SNAPSHOT)).cursor
    postgres_server.stop()
    shutil.rmtree(postgres_server.data_dir)
    shutil.copytree(backup, postgres_server.data_dir)
    # As docs/operations.md says.
    cluster = cluster_directory(postgres_server.data_dir)
    with (cluster / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")
    (cluster / "recovery.signal").touch()

    postgres_server.start()
    async with make_server(dsn()) as server:
        async with ScriptedAgent.connect(server, token) as agent:
            await agent.append([log_entry(1 + number, "another") for number in range(10)])
            await agent.acked()
        refusal = await refused(follow(server, lost_cursor))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")
        assert await follow(server, kept_cursor) is not None
        assert await contents(server) == ["0", *["another"] * 10]
