"""Metrics of limits: calls that were refused or ended, responses that nobody read."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.domain.limits import FIXED, Limit
from tasklogs_server.settings import ServerSettings
from tests.middleware.unread_responses import GET_TASK_LOGS, PAGE_BYTES, Reader, fill
from tests.support.fixtures.conditions import until
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import get_task
from tests.support.fixtures.server import MakeServer
from tests.telemetry.test_metrics import scrape

CHECK = "/grpc.health.v1.Health/Check"


def test_a_limit_has_the_name_of_its_setting() -> None:
    assert {limit.value for limit in set(Limit) - FIXED} <= ServerSettings.model_fields.keys()


async def test_a_response_that_is_not_read_is_counted_and_is_not_ok(
    make_server: MakeServer,
) -> None:
    async with make_server(metrics_listen="0", answer_timeout=timedelta(seconds=0.4)) as server:
        await fill(server)
        async with Reader.connected(server) as reader:
            await reader.ask_until_answered()
            seen = await scrape(server)
            assert seen("tasklogs_untaken_answer_bytes") > PAGE_BYTES
            assert seen("tasklogs_rpcs_under_way", method=GET_TASK_LOGS) == 1

            async def is_given_up() -> bool:
                await get_task(server)  # gRPC keeps the last call until the next one
                seen = await scrape(server)
                return seen("tasklogs_rpcs_under_way", method=GET_TASK_LOGS) == 0

            await until(is_given_up)
            seen = await scrape(server)

    assert seen("tasklogs_limited_total", limit=Limit.ANSWER_TIMEOUT) == 1
    assert seen("tasklogs_untaken_answer_bytes") < PAGE_BYTES
    assert seen("tasklogs_rpcs_total", method=GET_TASK_LOGS, code="OK") == 0
    assert seen("tasklogs_rpcs_total", method=GET_TASK_LOGS, code="CANCELLED") == 1


async def test_a_response_that_is_read_late_is_ok(
    make_server: MakeServer,
) -> None:
    async with make_server(metrics_listen="0") as server:
        await fill(server)
        async with Reader.connected(server) as reader:
            stream = await reader.ask_until_answered()
            assert (await scrape(server))("tasklogs_rpcs_under_way", method=GET_TASK_LOGS) == 1
            await reader.grant_window(stream)
            await reader.until(lambda: stream in reader.ended)

            async def is_over() -> bool:
                seen = await scrape(server)
                return seen("tasklogs_rpcs_total", method=GET_TASK_LOGS, code="OK") == 1

            await until(is_over)
            seen = await scrape(server)
            assert seen("tasklogs_limited_total", limit=Limit.ANSWER_TIMEOUT) == 0


async def test_a_request_that_does_not_arrive_is_counted(make_server: MakeServer) -> None:
    async with (
        make_server(metrics_listen="0", request_timeout=timedelta(seconds=0.4)) as server,
        Reader.connected(server) as reader,
    ):
        for path in (GET_TASK_LOGS, CHECK):
            await reader.peer.open_call(reader.target, path)

        await reader.until(lambda: len(reader.ended) == 2)

        seen = await scrape(server)
        assert seen("tasklogs_limited_total", limit=Limit.REQUEST_TIMEOUT) == 2
        assert seen("tasklogs_rpcs_total", method=CHECK, code="DEADLINE_EXCEEDED") == 1


async def test_a_refused_call_is_counted_by_its_limit(
    make_server: MakeServer,
) -> None:
    async with make_server(metrics_listen="0", follows=1) as server:
        await server.create_task("demo")
        request = pb.FollowTaskLogsRequest(task="local/demo")
        first = server.logs.FollowTaskLogs(request)
        await first.read()
        await refused(server.logs.FollowTaskLogs(request).read())

        seen = await scrape(server)
        assert seen("tasklogs_limited_total", limit=Limit.FOLLOWS) == 1
        assert seen("tasklogs_limited_total", limit=Limit.AGENTS) == 0
        first.cancel()


async def test_every_limit_is_shown_before_it_is_hit(make_server: MakeServer) -> None:
    async with make_server(metrics_listen="0") as server:
        seen = await scrape(server)

    assert seen.labels("tasklogs_limited_total", "limit") == set(Limit)


async def test_the_log_of_calls_does_not_say_ok_for_a_response_that_was_given_up(
    make_server: MakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    written = ""

    async def is_written() -> bool:
        nonlocal written
        await get_task(server)  # gRPC keeps the last call until the next one
        written += capsys.readouterr().err
        return any(GET_TASK_LOGS in line for line in written.splitlines())

    async with make_server(log_calls="all", answer_timeout=timedelta(seconds=0.4)) as server:
        await fill(server)
        async with Reader.connected(server) as reader:
            await reader.ask_until_answered()

            await until(is_written)

    [line] = [line for line in written.splitlines() if GET_TASK_LOGS in line]
    assert "code=CANCELLED" in line
