"""A supervisor and its workers as processes: how they start and end, and what they leave behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from tasklogs.v1 import tasks_pb2
from tests.cli.command import TASKLOGS, environment, run
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.certificates import Authority
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.issuer import claims, new_key, publish
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import get_task
from tests.support.fixtures.server import Server
from tests.transport.test_tls import der, seen_by_a_new_connection

SERVING = re.compile(r"serving on (\S+);")
WORKERS = 2
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
SERVES = health_pb2.HealthCheckResponse.SERVING


@dataclass
class Service:
    """A supervisor, with what it and its workers wrote."""

    process: asyncio.subprocess.Process
    said_in: Path
    address: str

    @property
    def said(self) -> str:
        return self.said_in.read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.said.splitlines() if line.startswith("{")]

    @property
    def event(self) -> dict[str, Any]:
        """The event of the start."""
        return next(one for one in self.events if one["event"] == "server.started")

    def pids(self) -> dict[int, int]:
        """Return the process of each worker that serves or served last, by its number."""
        started = [one for one in self.events if one["event"] == "worker.started"]
        return {one["worker"]: one["pid"] for one in started}

    def ended_workers(self) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == "worker.ended"]

    def keys_loaded(self) -> Counter[int]:
        """Return how often each worker has read its keys."""
        return Counter(one["worker"] for one in self.events if one["event"] == "keys.loaded")

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    async def replaced(self, worker: int, former: int) -> None:
        await until(lambda: self.pids()[worker] != former)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Server]:
        """Connect anew: the kernel deals connections to the workers at random."""
        async with grpc.aio.insecure_channel(self.address, options=OWN_CONNECTION) as channel:
            yield Server(self.address, "", channel)

    async def scraped(self) -> dict[tuple[str, str | None], float]:
        """Return the values of all samples, by name and worker."""
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://{self.event['metrics_address']}/metrics")
        assert answer.status_code == 200
        return {
            (sample.name, sample.labels.get("worker")): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }


@asynccontextmanager
async def serving(
    tmp_path: Path, *options: str, listen: str = "127.0.0.1:0", **variables: str
) -> AsyncIterator[Service]:
    said = tmp_path / "said"
    with said.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(str(TASKLOGS), "serve", "--workers", str(WORKERS), "--listen", listen),
            *("--log-format", "json", *options),
            env=environment({"TASKLOGS_DRAIN_TIMEOUT": "2"} | variables),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    left: list[psutil.Process] = []
    try:
        await until(
            lambda: bool(SERVING.search(said.read_text())) or process.returncode is not None
        )
        found = SERVING.search(said.read_text())
        assert found is not None, said.read_text()
        service = Service(process, said, found[1])
        # Each process writes its log by itself.
        await until(lambda: len(service.pids()) == WORKERS)
        left = service.descendants()
        yield service
        assert "Traceback" not in service.said
    finally:
        if process.returncode is None:
            left += psutil.Process(process.pid).children(recursive=True)
            process.kill()
            await process.wait()
        for one in left:
            if one.is_running():
                one.kill()


@pytest.fixture
def data_dir(migrated_data_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(migrated_data_dir, tmp_path / "data"))


async def ended(service: Service) -> int:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await service.process.wait()


async def all_gone(processes: list[psutil.Process]) -> None:
    await until(lambda: not any(one.is_running() for one in processes))


async def test_workers_share_a_free_port_and_drain_on_sigterm(
    data_dir: Path, tmp_path: Path
) -> None:
    async with serving(tmp_path, "--data-dir", str(data_dir)) as service:
        assert len(service.pids()) == WORKERS
        left = service.descendants()
        async with service.connected() as api:
            token = (await api.create_task()).agent_token
            async with ScriptedAgent.connect(api, token) as agent:
                await agent.append(open_epoch=True, entries=[log_entry(0, "kept")])
                await agent.acked()
                service.process.send_signal(signal.SIGTERM)
                await agent.heard(lambda: bool(agent.drains))
                refusal = await refused(get_task(api))
        assert await ended(service) == 0
        await all_gone(left)

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert service.event["workers"] == WORKERS
    assert service.event["address"] == service.address
    stopped = [one for one in service.events if one["event"] == "server.stopped"]
    assert [one.get("worker") for one in stopped[-1:]] == [None]
    assert {one.get("worker") for one in stopped} == {1, 2, None}


async def test_a_second_signal_ends_all_at_once(data_dir: Path, tmp_path: Path) -> None:
    long_drain = {"TASKLOGS_DRAIN_TIMEOUT": str(2 * DEADLINE_SECONDS)}
    async with serving(tmp_path, "--data-dir", str(data_dir), **long_drain) as service:
        left = service.descendants()
        async with service.connected() as api:
            token = (await api.create_task()).agent_token
            async with ScriptedAgent.connect(api, token) as agent:
                service.process.send_signal(signal.SIGTERM)
                await agent.heard(lambda: bool(agent.drains))
                service.process.send_signal(signal.SIGTERM)
                assert await ended(service) == 1
        await all_gone(left)
    assert any(one["event"] == "server.aborted" for one in service.events)


async def test_workers_drain_and_end_when_their_supervisor_is_killed(
    data_dir: Path, tmp_path: Path
) -> None:
    async with serving(tmp_path, "--data-dir", str(data_dir)) as service:
        left = service.descendants()
        assert any("postgres" in one.name() for one in left)
        service.process.kill()
        await all_gone(left)
    drained = {one["worker"] for one in service.events if one["event"] == "server.draining"}
    assert drained == {1, 2}


async def test_the_supervisor_does_not_load_grpc(database: str, tmp_path: Path) -> None:
    async with serving(tmp_path, "--database-url", database) as service:
        maps = [
            Path(f"/proc/{pid}/maps").read_text()
            for pid in (service.process.pid, *service.pids().values())
        ]
    assert ["cygrpc" in one for one in maps] == [False, True, True]


async def test_a_worker_that_gets_sigterm_drains_and_is_replaced(
    database: str, tmp_path: Path
) -> None:
    async with serving(tmp_path, "--database-url", database) as service:
        former = service.pids()[2]
        os.kill(former, signal.SIGTERM)
        await service.replaced(2, former)
        [told] = service.ended_workers()
        assert (told["worker"], told["pid"], told["how"]) == (2, former, "exit status 0")


async def test_one_scrape_shows_all_workers_and_what_happened_to_them(
    database: str, tmp_path: Path
) -> None:
    async with serving(
        *(tmp_path, "--database-url", database),
        TASKLOGS_METRICS_LISTEN="0",
        TASKLOGS_WORKER_TIMEOUT="60",
    ) as service:
        before = await service.scraped()
        assert before["tasklogs_workers_wanted", None] == WORKERS
        assert before["tasklogs_workers_serving", None] == WORKERS
        assert before["tasklogs_workers_scraped", None] == WORKERS
        for worker in ("1", "2", "supervisor"):
            assert before["process_resident_memory_bytes", worker] > 0
        for worker in ("1", "2"):
            assert before["tasklogs_store_up", worker] == 1
            assert before["tasklogs_bus_processes", worker] == 1
            assert before["tasklogs_worker_restarts_total", worker] == 0

        former = service.pids()[1]
        os.kill(former, signal.SIGSTOP)
        frozen = await service.scraped()
        assert frozen["tasklogs_workers_scraped", None] == 1
        assert ("tasklogs_store_up", "1") not in frozen
        assert frozen["tasklogs_store_up", "2"] == 1

        os.kill(former, signal.SIGKILL)
        await service.replaced(1, former)
        after = await service.scraped()
        assert after["tasklogs_worker_restarts_total", "1"] == 1
        assert after["tasklogs_worker_restarts_total", "2"] == 0
        assert after["tasklogs_workers_serving", None] == WORKERS


async def test_the_health_port_answers_while_a_worker_is_replaced(
    database: str, tmp_path: Path
) -> None:
    async with serving(tmp_path, "--database-url", database, TASKLOGS_HEALTH_LISTEN="0") as service:
        former = service.pids()[1]
        os.kill(former, signal.SIGKILL)
        answers = []
        while service.pids()[1] == former:
            answers.append(await health(service.event["health_address"]))
        assert answers
        assert set(answers) == {SERVES}


async def health(address: str) -> Any:
    async with grpc.aio.insecure_channel(address, options=OWN_CONNECTION) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        # A connection that was waiting at the worker that died is made again.
        request = stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60)
        return (await request).status


async def test_changed_keys_and_certificates_are_used_by_all_workers(
    database: str, tmp_path: Path
) -> None:
    old, new = new_key("old"), new_key("new")
    keys = tmp_path / "keys.json"
    publish(keys, old)
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    mine = claims("alice", iss="https://issuer.example", aud="tasklogs")
    async with serving(
        *(tmp_path, "--database-url", database, "--auth", "jwt", "--jwks-file", str(keys)),
        *("--jwt-issuer", "https://issuer.example", "--jwt-audience", "tasklogs"),
        *("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)),
    ) as service:
        publish(keys, new)
        pair.replace_by(authority.issue("renewed"))
        await until(lambda: service.keys_loaded() == {1: 2, 2: 2})
        root = grpc.ssl_channel_credentials(authority.ca.read_bytes())
        metadata = (("authorization", f"Bearer {new.sign(mine)}"),)
        for _ in range(8):  # the kernel deals them to both
            shown = await seen_by_a_new_connection(service.address, authority.ca)
            assert shown == der(pair.certificate)
            async with grpc.aio.secure_channel(service.address, root, OWN_CONNECTION) as channel:
                stub = Server(service.address, "", channel).tasks
                request = tasks_pb2.GetTaskRequest(task="alice/none")
                error = await refused(stub.GetTask(request, metadata=metadata))
                assert error.code is grpc.StatusCode.NOT_FOUND


async def test_a_worker_that_cannot_start_again_is_tried_again_and_the_others_serve(
    database: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    publish(keys, new_key("first"))
    async with serving(
        *(tmp_path, "--database-url", database, "--auth", "jwt", "--jwks-file", str(keys)),
        *("--jwt-issuer", "i", "--jwt-audience", "a"),
        TASKLOGS_HEALTH_LISTEN="0",
    ) as service:
        keys.unlink()
        former = service.pids()[1]
        os.kill(former, signal.SIGKILL)
        await until(lambda: len(service.ended_workers()) >= 3)
        assert await health(service.event["health_address"]) == SERVES
        publish(keys, new_key("second"))
        await service.replaced(1, former)
    assert service.ended_workers()[0]["how"] == "signal SIGKILL"
    assert "cannot load keys" in service.ended_workers()[1]["how"]
    assert {one["worker"] for one in service.ended_workers()} == {1}


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


async def test_what_cannot_start_says_so_in_one_line_and_leaves_nothing(
    database: str, tmp_path: Path, taken_port: int
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    keys = ("--auth=jwt", "--jwt-issuer=i", "--jwt-audience=a", f"--jwks-file={broken}")
    for options, words in {
        (f"--listen=127.0.0.1:{taken_port}",): "is another server there?",
        ("--listen=127.0.0.1:0", *keys): "cannot load keys",
        ("--listen=127.0.0.1:0", "--database-url=postgresql://a@127.0.0.1:1/x"): "database",
        ("--listen=0.0.0.0:0",): "--insecure",
    }.items():
        database_url = [f"--database-url={database}"] if "base-url" not in str(options) else []
        finished = await run("serve", "--workers=2", *options, *database_url)
        assert finished.code == 1
        [line] = finished.stderr.splitlines()
        assert words in line


async def test_nobody_else_can_use_the_port_of_a_service(database: str, tmp_path: Path) -> None:
    async with serving(tmp_path, "--database-url", database) as service:
        for workers in ("1", "2"):
            finished = await run(
                *("serve", f"--listen={service.address}", f"--workers={workers}"),
                f"--database-url={database}",
            )
            assert finished.code == 1
            assert "is another server there?" in finished.stderr
