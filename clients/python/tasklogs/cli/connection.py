"""Calls a server from a command: waits for each response, and fails in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self, TypeVar

import grpc.aio

from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.render.spinner import Spinner
from tasklogs.cli.rpc_failure import describe
from tasklogs.cli.target import Target
from tasklogs.client import decode
from tasklogs.client.credentials import Credentials
from tasklogs.client.server_info import ServerFeatures, ServerInfo
from tasklogs.connection.channel import open_channel
from tasklogs.errors import TaskLogsRpcError, parsed_rpc_errors, readable
from tasklogs.v1 import task_logs_pb2, task_logs_pb2_grpc, tasks_pb2_grpc

PATIENCE_SECONDS = 1.0
"""After this time a call shows what it waits for."""

Request = TypeVar("Request")
Response = TypeVar("Response")


class _PageRequest(Protocol):
    page_token: str


class _PageResponse(Protocol):
    @property
    def next_page_token(self) -> str: ...


PageRequest = TypeVar("PageRequest", bound=_PageRequest)
PageResponse = TypeVar("PageResponse", bound=_PageResponse)


class Connection:
    """A connection to a server inside a `with`. Every failed call raises CommandFailed."""

    tasks: tasks_pb2_grpc.TasksStub
    task_logs: task_logs_pb2_grpc.TaskLogsStub

    def __init__(self, target: Target) -> None:
        self._target = target
        self._credentials = Credentials(target.token)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._channel = self._runner.run(self._open())
        self.tasks = tasks_pb2_grpc.TasksStub(self._channel)
        self.task_logs = task_logs_pb2_grpc.TaskLogsStub(self._channel)
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._runner.run(self._channel.close(None))
        finally:
            self._runner.close()

    def call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        """Call `method` and return its response."""
        try:
            return self._runner.run(self._call(method, request))
        except TaskLogsRpcError as error:
            raise self._failure(error) from error

    def require(self, feature: str, option: str) -> None:
        """Fail if the server lacks a feature: it would ignore the option without a word."""

        async def ask() -> ServerInfo:
            request = task_logs_pb2.GetServerInfoRequest()
            return decode.server_info(await self._call(self.task_logs.GetServerInfo, request))

        try:
            self._runner.run(ServerFeatures().require([(feature, option)], ask))
        except TaskLogsRpcError as error:
            raise self._failure(error) from error

    def pages(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[PageRequest, PageResponse],
        request: PageRequest,
    ) -> Iterator[PageResponse]:
        """Call `method` until its last page; each page is requested when it is needed."""
        while True:
            page = self.call(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _failure(self, error: TaskLogsRpcError) -> CommandFailed:
        target = self._target
        return CommandFailed(describe(error, target.server, target.timeout_seconds, target.tls))

    async def _open(self) -> grpc.aio.Channel:
        return open_channel(self._target.server, tls=self._target.tls)

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        spinner = Spinner(f"waiting for {self._target.server}")
        timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, spinner.start)
        try:
            metadata = await self._credentials.metadata()
            with parsed_rpc_errors():
                answer = await method(
                    request, timeout=self._target.timeout_seconds, metadata=metadata
                )
            return readable(answer)
        finally:
            timer.cancel()
            spinner.stop()
