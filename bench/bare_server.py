"""The upper bound: a grpc.aio server that does the minimum for the same bytes.

`python -m bench.bare_server DSN CONSTANT_BYTES`, on uvloop, with the options of `tasklogs serve`
and as many connections as it has. Requests and responses are raw bytes:

  Constant  anything -> CONSTANT_BYTES bytes
  Log       task's UUID -> its first epoch, by one query
  Page      task's UUID, first and end ordinal (int32, big-endian) -> these entries, by one query
  Change    task's UUID, ordinal (int32, big-endian), content -> b"", by one update
  Idle      a stream that reads everything and sends nothing
  Publish, Follow  see bench/bare_fan_out.py
"""

from __future__ import annotations

import asyncio
import signal
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import uvloop

from bench.bare_fan_out import FanOut
from bench.writers import CHANGE
from tasklogs_server.settings import ServerSettings
from tasklogs_server.transport import listener

_PAGE = struct.Struct(">16sii")
_LOG_SQL = """
    SELECT string_agg(head || content, ''::bytea ORDER BY ordinal) FROM log_entries
     WHERE task_id = $1 AND epoch = 1"""
# For 1 MB, an array that Python joins costs a quarter less than string_agg; for 64 KB the same.
_PAGE_SQL = """
    SELECT ARRAY(SELECT head || content FROM log_entries
                  WHERE task_id = $1 AND epoch = 1 AND ordinal >= $2 AND ordinal < $3
                  ORDER BY ordinal)"""
_CHANGE_SQL = """
    UPDATE log_entries SET content = $3, revision = revision + 1
     WHERE task_id = $1 AND epoch = 1 AND ordinal = $2"""

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class _Statements:
    """One connection's."""

    log: Any
    page: Any
    change: Any


class BareService:
    """The handlers."""

    def __init__(self, constant: bytes) -> None:
        self._constant = constant
        self._idle: list[_Statements] = []
        self._free = asyncio.Semaphore(0)

    async def connect(self, dsn: str, count: int) -> None:
        for _ in range(count):
            connection = await asyncpg.connect(dsn, server_settings={"jit": "off"})
            log, page, change = [
                await connection.prepare(sql) for sql in (_LOG_SQL, _PAGE_SQL, _CHANGE_SQL)
            ]
            await connection.execute("SELECT 1")  # prepare() leaves a transaction open
            self._idle.append(_Statements(log, page, change))
            self._free.release()

    async def constant(self, request: bytes, context: Context) -> bytes:
        return self._constant

    async def log(self, request: bytes, context: Context) -> bytes:
        async with self._statements() as statements:
            return bytes(await statements.log.fetchval(UUID(bytes=request)))

    async def page(self, request: bytes, context: Context) -> bytes:
        task_id, start, end = _PAGE.unpack(request)
        async with self._statements() as statements:
            return b"".join(await statements.page.fetchval(UUID(bytes=task_id), start, end))

    async def change(self, request: bytes, context: Context) -> bytes:
        task_id, ordinal = CHANGE.unpack(request[: CHANGE.size])
        async with self._statements() as statements:
            await statements.change.fetch(UUID(bytes=task_id), ordinal, request[CHANGE.size :])
        return b""

    @asynccontextmanager
    async def _statements(self) -> AsyncIterator[_Statements]:
        async with self._free:
            statements = self._idle.pop()
            try:
                yield statements
            finally:
                self._idle.append(statements)

    async def idle(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async for _ in requests:
            pass


async def serve(dsn: str, constant_bytes: int) -> None:
    settings = ServerSettings.model_validate({})
    service = BareService(b"x" * constant_bytes)
    await service.connect(dsn, settings.read_connections)
    # Exactly the options of the server under test: a copy would become outdated.
    server = grpc.aio.server(options=listener.options(settings, settings.connections))
    unary = grpc.unary_unary_rpc_method_handler
    handlers: dict[str, Any] = {
        "Constant": unary(service.constant),
        "Log": unary(service.log),
        "Page": unary(service.page),
        "Change": unary(service.change),
        "Idle": grpc.stream_stream_rpc_method_handler(service.idle),
        **FanOut().handlers(),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bare", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(f"serving on 127.0.0.1:{port};", file=sys.stderr, flush=True)
    await stop.wait()
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
