#!/bin/sh
# grpc.aio replaces the status that the server sent when a write meets the end of the stream.
#
# Guess: the status belongs to the call. If the server ends a stream with FAILED_PRECONDITION and
#   details, the write that comes too late may fail, but reads and `call.code()` give that status.
# Instead: in about half of the streams the write fails with INTERNAL "Internal error from Core".
#   From then on every read, `call.code()` and `call.details()` say the same. Nothing on the call
#   gives the server's status.
# Versions: grpcio 1.85.1.
# Why it matters: the status tells a client that sends a log what to do: stop, wait, or send the log
#   again. INTERNAL looks like a bug of the server, which no client can act on.
# What we do: clients/python/tasklogs/publish/stream_status.py keeps the first status that a
#   call gets, before the failed write replaces it.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    grpcio==1.85.1 typing_extensions==4.16.0
GRPC_VERBOSITY=NONE timeout 50 "$work/venv/bin/python" - <<'END'
import asyncio
import sys
from collections import Counter

import grpc

STREAMS = 400
REFUSAL = (grpc.StatusCode.FAILED_PRECONDITION, "the log was truncated")
FROM_CORE = ("INTERNAL", "Internal error from Core")


async def refuse(_, context):
    await context.read()
    await context.abort(*REFUSAL)


async def outcome_of(operation):
    try:
        await operation
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details()
    except asyncio.InvalidStateError as error:
        return "InvalidStateError", str(error)
    return None


async def main():
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("findings.Log", {"Send": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    writes, reads, codes = Counter(), Counter(), Counter()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for number in range(STREAMS):
            call = channel.stream_stream("/findings.Log/Send")()
            while (outcome := await outcome_of(call.write(b"x" * 3000))) is None:
                for _ in range(number % 10):  # so that writes meet the end at different moments
                    await asyncio.sleep(0)
            writes[outcome] += 1
            reads[await outcome_of(call.read())] += 1
            codes[(await call.code()).name, await call.details()] += 1
    await server.stop(None)

    print(f"grpcio {grpc.__version__}, Python {sys.version.split()[0]}")
    print(f"the server ended each of {STREAMS} streams with {REFUSAL[0].name}: {REFUSAL[1]}")
    for what, counter in (("last write", writes), ("next read", reads), ("call.code()", codes)):
        for (code, details), count in counter.most_common():
            print(f"  {what}: {count} times {code}: {details}")
    lost = reads[FROM_CORE] and codes[FROM_CORE]
    print("the status was lost" if lost else "CHANGED: no status was lost")
    return 0 if lost else 1


sys.exit(asyncio.run(main()))
END
