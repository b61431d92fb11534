from __future__ import annotations

import asyncio

import pytest

from tasklogs.agent.sources.agentapi.faults import Fault, TaskAppError
from tasklogs.agent.sources.agentapi.process import ProcessWitness
from tests.agent.conftest import until
from tests.support.fakes.http_server import HttpServer, Request, Response


async def nothing(request: Request) -> Response:
    return Response()


async def test_a_connection_that_stays_open_proves_the_process() -> None:
    process = HttpServer(nothing)
    await process.start()
    witness = ProcessWitness("127.0.0.1", process.port, 5.0)
    number = await witness.number()
    assert await witness.number() == number
    assert witness.still(number)
    await until(lambda: process.connections == 1)
    witness.close()
    await process.stop()


async def test_another_process_on_the_same_port_has_another_number() -> None:
    process = HttpServer(nothing)
    await process.start()
    witness = ProcessWitness("localhost", process.port, 5.0)
    number = await witness.number()
    await until(lambda: process.connections == 1)
    await process.stop()
    assert not witness.still(number)
    with pytest.raises(TaskAppError, match="connection refused") as caught:
        await witness.number()
    assert caught.value.fault is Fault.DOWN
    await process.start(process.port)
    assert not witness.still(number)
    assert await witness.number() == number + 1
    witness.close()
    await process.stop()


async def test_an_event_stream_that_stays_open_is_a_witness_too() -> None:
    process = HttpServer(nothing)
    await process.start()
    witness = ProcessWitness("127.0.0.1", process.port, 5.0)
    number = await witness.number()
    stream = ProcessWitness("127.0.0.1", process.port, 5.0)
    await stream.number()
    witness.watch_stream(stream._idle)
    witness.close()
    assert await witness.number() == number
    assert witness.still(number)
    witness.close()
    stream.close()
    assert await witness.number() == number + 1
    witness.close()
    await process.stop()


async def test_numbers_asked_for_at_the_same_time_agree() -> None:
    process = HttpServer(nothing)
    await process.start()
    witness = ProcessWitness("127.0.0.1", process.port, 5.0)
    assert set(await asyncio.gather(*(witness.number() for _ in range(10)))) == {1}
    await until(lambda: process.connections == 1)
    witness.close()
    await process.stop()
