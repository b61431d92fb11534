"""Accepts several calls at once. grpc.aio accepts one after the other.

In grpc.aio, each call that is accepted takes three turns of the event loop, and all methods share
them. So in a busy server new calls stand in a line of gRPC's, which does not know who calls: one
caller with a thousand calls delays all others. Here each turn accepts several calls of each of the
methods that are called all the time (`OWN_QUEUES`). Calls that were accepted wait in turns by
caller (`limits/admission.py`). It is cheaper, too: a read of 64 KB took 0.7 of the CPU time (grpcio
1.85).

This calls what grpc.aio's own loop calls, which is not public: `grpc_workarounds.check` says so at
start if it is gone, and grpc.aio goes on alone.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import grpc

from tasklogs_server.middleware.handlers import MethodHandler

ACCEPTS = 8
"""How many calls of each method may be accepted in one turn of the loop.

Those that are refused at once end in that turn, and the calls of all others wait for it.
"""

_NEEDED = ("_MethodResolver", "_RequestCallError", "_handle_rpc", "_schedule_rpc_coro")


def is_possible() -> bool:
    """Whether this grpcio has what CallAcceptor needs."""
    internals = importlib.import_module("grpc._cython.cygrpc")
    return all(hasattr(internals, name) for name in _NEEDED) and hasattr(
        internals.AioServer, "_request_registered_call"
    )


class CallAcceptor:
    """Accepts the calls of some methods, beside grpc.aio."""

    def __init__(
        self,
        server: grpc.aio.Server,
        handlers: Mapping[str, MethodHandler],
        interceptors: Sequence[grpc.aio.ServerInterceptor],
    ) -> None:
        """`handlers`: by the whole names of their methods, which are registered on the server."""
        internals: Any = importlib.import_module("grpc._cython.cygrpc")
        untyped: Any = server
        self._server = untyped._server
        self._methods = tuple(handlers)
        self._resolver = internals._MethodResolver([], dict(handlers))
        self._interceptors = tuple(interceptors)
        self._handle = internals._handle_rpc
        self._schedule = internals._schedule_rpc_coro
        self._stopped: type[Exception] = internals._RequestCallError
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Accept calls until the server stops. It has started."""
        for method in self._methods:
            for _ in range(ACCEPTS):
                self._run(self._accept(method))

    async def _accept(self, method: str) -> None:
        encoded = method.encode()
        # A server that has stopped must not be asked: gRPC would use freed memory.
        while self._server.is_running():
            try:
                # What is returned gets no name here: it would keep its call until the next one.
                self._begin(method, await self._server._request_registered_call(encoded))
            except self._stopped:
                continue  # the server stops, or this one call has ended too early

    def _begin(self, method: str, call: Any) -> None:
        loop = asyncio.get_running_loop()
        too_many = False  # of grpc.aio's own limit, which is not used
        handling = self._handle(method, self._resolver, self._interceptors, call, loop, too_many)
        self._run(self._schedule(handling, call, loop, method))

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        # The loop holds tasks weakly.
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
