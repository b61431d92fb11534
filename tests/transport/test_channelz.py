"""grpc.channelz, which shows connections and is off by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2

from tests.support.fixtures.authenticated import ADMIN, Metadata, guarded
from tests.support.fixtures.server import MakeServer, Server
from tests.transport.test_reflection import METHODS, ask, files

SERVERS = "/grpc.channelz.v1.Channelz/GetServers"


async def servers(server: Server, metadata: Metadata = ()) -> channelz_pb2.GetServersResponse:
    untyped: Any = server.channel
    call = untyped.unary_unary(
        SERVERS,
        request_serializer=channelz_pb2.GetServersRequest.SerializeToString,
        response_deserializer=channelz_pb2.GetServersResponse.FromString,
    )
    response: channelz_pb2.GetServersResponse = await call(
        channelz_pb2.GetServersRequest(), metadata=metadata
    )
    return response


async def test_it_is_not_served_by_default(server: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await servers(server)

    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_it_shows_the_server_and_its_calls(make_server: MakeServer) -> None:
    async with make_server(channelz=True) as server:
        await server.create_task("demo")
        answer = await servers(server)

    assert sum(one.data.calls_succeeded for one in answer.server) >= 1


@pytest.mark.parametrize("method", METHODS)
async def test_reflection_knows_it(make_server: MakeServer, method: str) -> None:
    async with make_server(channelz=True) as server:
        listed = await ask(server, method, list_services="")
        names = {one.name for one in listed.list_services_response.service}
        found = await files(server, method, "grpc.channelz.v1.Channelz")

    assert "grpc.channelz.v1.Channelz" in names
    assert any(file.package == "grpc.channelz.v1" for file in found.values())


async def test_with_authentication_it_is_for_admins_alone(
    make_server: MakeServer, tmp_path: Path
) -> None:
    async with guarded(make_server, tmp_path, channelz=True) as guard:
        for metadata, code in (
            ((), grpc.StatusCode.UNAUTHENTICATED),
            (guard.as_("alice"), grpc.StatusCode.PERMISSION_DENIED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await servers(guard.server, metadata)
            assert raised.value.code() is code
        answer = await servers(guard.server, guard.as_("root", scope=ADMIN))

    assert answer.server
