"""Calls with a single response: credentials, time-out, retries, errors as exceptions."""

from __future__ import annotations

import asyncio
import random
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TypeVar

import grpc
import grpc.aio

from tasklogs.client.credentials import Credentials, Metadata
from tasklogs.client.open_calls import OpenCalls
from tasklogs.client.retry import RetryPolicy
from tasklogs.connection.library_log import LOG
from tasklogs.errors import (
    DeadlineExceeded,
    TaskLogsRpcError,
    Unauthenticated,
    parsed_rpc_errors,
    readable,
)

Request = TypeVar("Request")
Response = TypeVar("Response")

# gRPC's deadlines overflow after 292 years.
_LONGEST_SECONDS = 100 * 365 * 86400.0


class Calls:
    """Begins the calls of one client."""

    def __init__(
        self,
        credentials: Credentials,
        timeout: timedelta | None,
        retry: RetryPolicy | None,
        running: OpenCalls,
    ) -> None:
        self._credentials = credentials
        self._running = running
        self._timeout_seconds = seconds(timeout)
        self._retry = retry
        self._rng = random.Random()

    def begin(
        self, timeout: timedelta | None, metadata: Metadata | None, *, is_short: bool = True
    ) -> Call:
        """Begin a call that ends within `timeout`.

        If that is None, the limit is that of the client, or for a call that is not short there is
        none. `metadata` is added to the client's. Raises TypeError and ValueError for impossible
        ones.
        """
        default = self._timeout_seconds if is_short else None
        limit = default if timeout is None else seconds(timeout)
        credentials = self._credentials.adding(metadata)
        return Call(credentials, limit, self._retry, self._rng, self._running)


class Call:
    """One call of a program. All requests that it takes share its time-out."""

    def __init__(
        self,
        credentials: Credentials,
        timeout_seconds: float | None,
        retry: RetryPolicy | None,
        rng: random.Random,
        running: OpenCalls,
    ) -> None:
        self._credentials = credentials
        self._retry = retry
        self._rng = rng
        self._running = running
        self._ends_at = (
            None if timeout_seconds is None else asyncio.get_running_loop().time() + timeout_seconds
        )

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        repeatable: bool = False,
    ) -> Response:
        """Make the request. If it is `repeatable`, repeat it as the errors and the policy say.

        If the server refuses a token that a function returned, the function is called once more.
        Raises ClientClosed, also if the client is closed meanwhile.
        """
        async with self.running():
            return await self._repeated(method, request, repeatable)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Return a block that raises ClientClosed if the client is closed meanwhile."""
        return self._running.running()

    async def _repeated(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        repeatable: bool,
    ) -> Response:
        failed: TaskLogsRpcError | None = None
        attempts = 0
        try:
            while True:
                attempts += 1
                try:
                    return await self._attempt(method, request)
                except DeadlineExceeded as error:
                    # What used the time up says more than that it is used up.
                    if failed is not None and error.reason is None:
                        raise error from failed
                    failed = error
                except TaskLogsRpcError as error:
                    failed = error
                wait = self._wait_seconds(failed, attempts) if repeatable else None
                if wait is None:
                    raise failed
                LOG.info(
                    "%s failed: %s; attempt %d in %.1f s",
                    type(request).__name__.removesuffix("Request"),
                    failed,
                    attempts + 1,
                    wait,
                )
                await asyncio.sleep(wait)
        finally:
            failed = None  # the traceback of the error refers to this frame

    async def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return the metadata to send. Raises DeadlineExceeded if the token does not come."""
        try:
            async with asyncio.timeout_at(self._ends_at) as limit:
                return await self._credentials.metadata()
        except TimeoutError:
            if not limit.expired():
                raise
            raise _too_late("the function for the token took too long") from None

    def remaining_seconds(self) -> float | None:
        """Return the time that is left; None: without limit. Raises DeadlineExceeded at its end."""
        if self._ends_at is None:
            return None
        left = self._ends_at - asyncio.get_running_loop().time()
        if left <= 0:  # gRPC would send the request
            raise _too_late("the time-out has passed")
        return left

    async def _attempt(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        try:
            return await self._request(method, request)
        except Unauthenticated:
            if not self._credentials.can_refresh:
                raise
        return await self._request(method, request)

    async def _request(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        metadata = await self.metadata()
        timeout = self.remaining_seconds()
        with parsed_rpc_errors():
            answer = await method(request, timeout=timeout, metadata=metadata)
        return readable(answer)

    def _wait_seconds(self, error: TaskLogsRpcError, attempts: int) -> float | None:
        if self._retry is None:
            return None
        wait = self._retry.wait_seconds(error, attempts, self._rng)
        if wait is None or self._ends_at is None:
            return wait
        return wait if asyncio.get_running_loop().time() + wait < self._ends_at else None


def seconds(timeout: object) -> float | None:
    """Return a time-out as gRPC takes it. Raises TypeError for anything but a timedelta."""
    if timeout is None:
        return None
    if not isinstance(timeout, timedelta):
        raise TypeError("a time-out is a timedelta, for example timedelta(seconds=5)")
    return min(timeout.total_seconds(), _LONGEST_SECONDS)


def _too_late(why: str) -> DeadlineExceeded:
    return DeadlineExceeded(code=grpc.StatusCode.DEADLINE_EXCEEDED, message=why)
