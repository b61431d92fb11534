#!/bin/sh
# grpcio-channelz and grpcio-reflection choose their servicer by the class of the server object.
#
# Guess: `add_channelz_servicer(server)` works with any object that has the methods of a server, as
#   generated `add_..._to_server` functions do, and adds the same handlers.
# Instead: both packages ask `isinstance(server, grpc.aio.Server)`. An object around the server gets
#   the handlers for the synchronous server, without a warning. grpc.aio runs those in a thread, so
#   calls work until an interceptor awaits the handler: then each call fails with UNKNOWN.
# Versions: grpcio 1.85.1, grpcio-channelz 1.85.0, grpcio-reflection 1.85.1.
# Why it matters: a log service that puts an object around its server, to check that each method has
#   an access rule, loses its diagnostics and learns that from the first failed call.
# What we do: server/tasklogs_server/transport/registration.py names the asyncio servicers.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check grpcio==1.85.1 \
    grpcio-channelz==1.85.0 grpcio-reflection==1.85.1 protobuf==7.36.2 typing_extensions==4.16.0
GRPC_VERBOSITY=NONE timeout 50 "$work/venv/bin/python" - <<'END'
import asyncio
import inspect
import logging
import sys
from importlib.metadata import version

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2, channelz_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

logging.disable()  # grpc.aio logs the interceptor's TypeError with its traceback


class Around:
    """Passes everything on to the server."""

    def __init__(self, server):
        self._server = server

    def __getattr__(self, name):
        return getattr(self._server, name)


class Awaiting(grpc.aio.ServerInterceptor):
    """Awaits each unary handler, as an interceptor does that catches errors or measures time."""

    def __init__(self):
        self.kinds = {}

    async def intercept_service(self, continuation, details):
        handler = await continuation(details)
        function = handler.unary_unary or handler.stream_stream
        is_asyncio = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        name = details.method.rpartition("/")[2]
        self.kinds[name] = "asyncio" if is_asyncio else "synchronous"
        if handler.unary_unary is None:
            return handler

        async def awaiting(request, context):
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            awaiting, handler.request_deserializer, handler.response_serializer
        )


async def call(around):
    """Return the kinds of handlers, and how GetServers ended."""
    interceptor = Awaiting()
    server = grpc.aio.server(interceptors=[interceptor])
    registered_on = Around(server) if around else server
    channelz.add_channelz_servicer(registered_on)
    reflection.enable_server_reflection(["grpc.channelz.v1.Channelz"], registered_on)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            stub = channelz_pb2_grpc.ChannelzStub(channel)
            answer = await stub.GetServers(channelz_pb2.GetServersRequest())
            ended = f"OK, {len(answer.server)} server"
        except grpc.aio.AioRpcError as error:
            ended = f"{error.code().name}: {error.details()}"
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for _ in stub.ServerReflectionInfo(iter([request])):
            pass
    await server.stop(None)
    return interceptor.kinds, ended


async def main():
    names = ("grpcio", "grpcio-channelz", "grpcio-reflection")
    print(", ".join(f"{name} {version(name)}" for name in names))
    outcomes = {}
    for around in (False, True):
        kinds, ended = outcomes[around] = await call(around)
        print("an object around the server:" if around else "the server itself:")
        for method, kind in kinds.items():
            print(f"  {method}: {kind} handler")
        print(f"  GetServers ended with {ended}")
    as_found = (
        set(outcomes[False][0].values()) == {"asyncio"}
        and set(outcomes[True][0].values()) == {"synchronous"}
        and outcomes[False][1].startswith("OK")
        and outcomes[True][1].startswith("UNKNOWN")
    )
    print("the class of the server object decides" if as_found else "CHANGED")
    return 0 if as_found else 1


sys.exit(asyncio.run(main()))
END
