"""The metrics of a running server, as Prometheus reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from cryptography import x509
from grpc.aio import AioRpcError
from prometheus_client.parser import text_string_to_metric_families

from tasklogs.v1 import task_logs_pb2, tasks_pb2, types_pb2
from tasklogs_server.app import StartupError
from tasklogs_server.settings import ServerSettings
from tasklogs_server.tasks import purge
from tests.store.logs import ENTRY_COLUMNS, entry_record, entry_row
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.certificates import Authority
from tests.support.fixtures.conditions import until
from tests.support.fixtures.server import MakeServer, Server
from tests.tasks.keeper import locked

GET = "/tasklogs.v1.TaskLogs/GetTaskLogs"


class Scraped:
    """One response of the metrics port."""

    def __init__(self, text: str) -> None:
        self._samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self._samples.get((name, tuple(sorted(labels.items()))), 0.0)

    @property
    def methods(self) -> set[str]:
        return {dict(labels).get("method", "") for _, labels in self._samples}

    def labels(self, name: str, label: str) -> set[str]:
        """All values of a label of a metric."""
        return {dict(labels)[label] for one, labels in self._samples if one == name}


async def scrape(server: Server) -> Scraped:
    assert server.metrics_address is not None
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://{server.metrics_address}/metrics")
    assert answer.status_code == 200
    return Scraped(answer.text)


async def test_every_call_is_counted_by_method_and_code_and_timed(make_server: MakeServer) -> None:
    async with make_server(metrics_listen="0") as server:
        await server.create_task("demo")
        request = task_logs_pb2.GetTaskLogsRequest(task="local/demo")
        for _ in range(3):
            await server.logs.GetTaskLogs(request)
        with pytest.raises(AioRpcError):
            await server.logs.GetTaskLogs(task_logs_pb2.GetTaskLogsRequest(task="local/other"))
        await until(lambda: _all_are_over(server))
        seen = await scrape(server)

    assert seen("tasklogs_rpcs_total", method=GET, code="OK") == 3
    assert seen("tasklogs_rpcs_total", method=GET, code="NOT_FOUND") == 1
    assert seen("tasklogs_rpc_duration_seconds_count", method=GET) == 4
    assert seen("tasklogs_rpcs_under_way", method=GET) == 0


async def _all_are_over(server: Server) -> bool:
    """A caller may have its response before the server knows that it was read."""
    return (await scrape(server))("tasklogs_rpcs_under_way", method=GET) == 0


async def test_the_name_of_an_unknown_method_is_not_a_label(make_server: MakeServer) -> None:
    async with make_server(metrics_listen="0") as server:
        channel: Any = server.channel
        for name in ("/tasklogs.v1.TaskLogs/Secret", "/x/y"):
            with pytest.raises(AioRpcError):
                await channel.unary_unary(name)(b"")
        seen = await scrape(server)

    assert seen("tasklogs_rpcs_total", method="other", code="UNIMPLEMENTED") == 2
    assert not {method for method in seen.methods if "Secret" in method or "/x/" in method}


async def test_sessions_followers_commits_and_lag_are_shown(make_server: MakeServer) -> None:
    async with make_server(metrics_listen="0") as server:
        made = await server.create_task("demo", standalone=True)
        async with ScriptedAgent.connect(server, made.agent_token) as agent:
            agent.answer_syncs()
            await agent.append([log_entry(0, "hello")], open_epoch=True)
            await agent.acked()
            await agent.report()
            await until(lambda: _is_active(server))
            follow: Any = server.logs.FollowTaskLogs(
                task_logs_pb2.FollowTaskLogsRequest(task="local/demo")
            )
            while (await follow.read()).WhichOneof("event") != "caught_up":
                pass
            seen = await scrape(server)
            follow.cancel()

    assert seen("tasklogs_sessions_open") == 1
    assert seen("tasklogs_followers") == 1
    assert seen("tasklogs_handshakes_total", outcome="done") == 1
    assert seen("tasklogs_commit_batch_tasks_sum") >= 1
    assert seen("tasklogs_commit_batch_bytes_sum") >= len("hello")
    assert seen("tasklogs_commit_duration_seconds_count") >= 1
    assert seen("tasklogs_ingest_lag_seconds_count") == 1
    assert seen("tasklogs_sync_duration_seconds_count", outcome="done") >= 1
    assert seen("tasklogs_rpcs_under_way", method="/tasklogs.v1.TaskAgents/Connect") == 1
    assert seen("tasklogs_unacknowledged_bytes") == 0
    assert seen("tasklogs_upload_bytes") == 0
    assert seen("tasklogs_store_up") == 1
    assert seen("tasklogs_draining") == 0
    assert seen("process_resident_memory_bytes") > 0


async def _is_active(server: Server) -> bool:
    task = await server.tasks.GetTask(tasks_pb2.GetTaskRequest(task="local/demo"))
    return task.status == types_pb2.TASK_STATUS_ACTIVE


async def test_the_backlog_of_deletions_is_shown(
    make_server: MakeServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "_COUNT_EVERY_SECONDS", 0.2)
    monkeypatch.setattr(purge, "_SWEEP_EVERY_SECONDS", 0.2)
    async with make_server(metrics_listen="0") as server:
        task_id = UUID((await server.create_task("demo")).task.id)
        sql = await asyncpg.connect(database)
        await sql.copy_records_to_table(
            "log_entries",
            records=[entry_record(task_id, entry_row(1, 0, 2, b"x"))],
            columns=ENTRY_COLUMNS,
        )
        await sql.close()

        async def is_shown(tasks: int) -> bool:
            seen = await scrape(server)
            return (
                seen("tasklogs_purge_backlog_tasks") == tasks
                and seen("tasklogs_purge_set_aside_tasks") == tasks
            )

        async with locked(database, "log_entries", task_id):
            await server.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task="local/demo"))
            await until(lambda: is_shown(1))
        await until(lambda: is_shown(0))
        assert (await scrape(server))("tasklogs_retirement_backlog_tasks") == 0


async def test_the_lag_includes_the_time_that_the_agent_waited(make_server: MakeServer) -> None:
    async with make_server(metrics_listen="0") as server:
        made = await server.create_task("demo", standalone=True)
        async with ScriptedAgent.connect(server, made.agent_token) as agent:
            await agent.append([log_entry(0, "hello")], open_epoch=True, waited_ms=3000)
            await agent.acked()
            seen = await scrape(server)

    assert 3 <= seen("tasklogs_ingest_lag_seconds_sum") < 30


async def test_without_the_setting_there_is_no_port(server: Server) -> None:
    assert ServerSettings.model_fields["metrics_listen"].default is None
    assert server.metrics_address is None


async def test_the_error_of_a_port_in_use_is_one_line(make_server: MakeServer) -> None:
    async with make_server(metrics_listen="0") as server:
        with pytest.raises(StartupError, match="TASKLOGS_METRICS_LISTEN"):
            async with make_server(metrics_listen=server.metrics_address):
                pass


async def test_the_expiry_of_the_certificate_is_shown_if_there_is_one(
    make_server: MakeServer, tmp_path: Path
) -> None:
    pair = Authority(tmp_path).issue("server")
    expiry = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).not_valid_after_utc
    name = "tasklogs_tls_certificate_expiry_timestamp_seconds"
    async with make_server(
        metrics_listen="0", tls_cert=pair.certificate, tls_key=pair.key
    ) as secured:
        assert (await scrape(secured))(name) == expiry.timestamp()
    async with make_server(metrics_listen="0") as plain:
        assert (await scrape(plain))(name) == 0.0
