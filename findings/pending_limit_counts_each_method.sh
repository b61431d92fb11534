#!/bin/sh
# gRPC's limit of pending requests of a server counts each registered method by itself.
#
# Guess: `grpc.server.max_pending_requests_hard_limit` bounds the calls of a server that no handler
#   has got yet. With 20, a server that is busy keeps 20 calls, whatever they call.
# Instead: it bounds each queue, and each registered method has one. Generated code registers all
#   methods. So a server with two methods keeps 40. If its methods are not registered, it keeps 20.
# Versions: grpcio 1.85.1.
# Why it matters: the memory that waiting calls take grows with the number of methods, and a caller
#   who fills one queue has the calls of that method refused, and of no other.
# What we do: docs/design.md counts the queues; server/tasklogs_server/transport/registration.py
#   registers only the methods that are called the most.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check grpcio==1.85.1 \
    typing_extensions==4.16.0
cat > "$work/callers.py" <<'END'
"""Begins calls of both methods at once, and prints how many were answered."""

import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1])
grpc.channel_ready_future(channel).result(20)
busy = channel.unary_unary("/log/Busy").future(b"", timeout=20)
calls = [channel.unary_unary(one).future(b"", timeout=20) for one in ("/log/A", "/log/B") * 60]
print(sum(call.code() is grpc.StatusCode.OK for call in calls))
busy.result()
END
GRPC_VERBOSITY=NONE timeout 50 "$work/venv/bin/python" - "$work/callers.py" <<'END'
import asyncio
import sys
import time

import grpc

LIMIT = 20
# Calls that the server has asked for, one for each queue, and one more that gRPC accepts.
MARGIN = 6


async def busy(_, __):
    time.sleep(3)  # the event loop stands still, as it does during long work
    return b""


async def answer(_, __):
    return b""


async def answered(register):
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.server.max_pending_requests", LIMIT),
            ("grpc.server.max_pending_requests_hard_limit", LIMIT),
        ]
    )
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(function)
        for name, function in (("Busy", busy), ("A", answer), ("B", answer))
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("log", handlers)])
    if register:
        server.add_registered_method_handlers("log", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    callers = await asyncio.create_subprocess_exec(
        sys.executable, sys.argv[1], f"127.0.0.1:{port}", stdout=asyncio.subprocess.PIPE
    )
    count = int((await callers.communicate())[0])
    await server.stop(None)
    return count


plain, registered = asyncio.run(answered(False)), asyncio.run(answered(True))
print(f"grpcio {grpc.__version__}, of 120 calls of two methods, with a limit of {LIMIT}:")
print(f"  {plain} are answered if no method is registered")
print(f"  {registered} are answered if both are")
as_found = LIMIT <= plain <= LIMIT + MARGIN and 2 * LIMIT <= registered <= 2 * LIMIT + MARGIN
print("each registered method has a queue" if as_found else "CHANGED")
sys.exit(not as_found)
END
