"""Calls with a single response: credentials, time-out, errors as exceptions."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

import grpc.aio

from tasklogs.client.credentials import Credentials
from tasklogs.errors import Unauthenticated, parsed_rpc_errors, readable

Request = TypeVar("Request")
Response = TypeVar("Response")


class Calls:
    """Makes the calls of one client."""

    def __init__(self, credentials: Credentials, timeout: timedelta | None) -> None:
        self._credentials = credentials
        self._timeout = timeout

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: timedelta | None = None,
    ) -> Response:
        """Call `method` within `timeout`, or within the client's time-out if it is None.

        If the server refuses a token that a function returned, the function is called once more.
        """
        try:
            return await self._call(method, request, timeout or self._timeout)
        except Unauthenticated:
            if not self._credentials.can_refresh:
                raise
        return await self._call(method, request, timeout or self._timeout)

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: timedelta | None,
    ) -> Response:
        metadata = await self._credentials.metadata()
        with parsed_rpc_errors():
            answer = await method(
                request,
                timeout=None if timeout is None else timeout.total_seconds(),
                metadata=metadata,
            )
        return readable(answer)
