#!/bin/sh
# A grpc.aio handler first sees a cancelled stream as one that its client has finished.
#
# Guess: if a client cancels a stream, the handler's `async for` over the requests, or its
#   `context.read()`, raises CancelledError. At the latest `context.cancelled()` is true then.
# Instead: both first end as after the client's `done_writing()`, and `context.cancelled()` and
#   `context.done()` are false. CancelledError comes at a later await. At the end of the requests a
#   handler cannot tell the two ends apart.
# Versions: grpcio 1.85.1.
# Why it matters: a log service would take a log whose sender was lost in the middle for a complete
#   one, if the end of the stream meant the end of the log.
# What we do: only the message Goodbye says that an agent left on purpose. An end without one is a
#   lost agent: server/tasklogs_server/services/task_agents.py.
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

STREAMS = 50
seen = asyncio.Queue()


async def iterate(requests, context):
    try:
        async for _ in requests:
            await context.write(b"received")
    except BaseException as error:
        seen.put_nowait(type(error).__name__)
        raise
    await end(context)


async def read(_, context):
    try:
        while await context.read() is not grpc.aio.EOF:
            await context.write(b"received")
    except BaseException as error:
        seen.put_nowait(type(error).__name__)
        raise
    await end(context)


async def end(context):
    first = f"end of input, cancelled() {context.cancelled()}, done() {context.done()}"
    try:
        await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        seen.put_nowait(f"{first}; then CancelledError")
        raise
    seen.put_nowait(f"{first}; then nothing")


async def main():
    server = grpc.aio.server()
    handlers = {
        "iterate": grpc.stream_stream_rpc_method_handler(iterate),
        "read": grpc.stream_stream_rpc_method_handler(read),
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("findings.Log", handlers)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"grpcio {grpc.__version__}, Python {sys.version.split()[0]}")
    looked_finished = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in handlers:
            for how in ("done_writing", "cancel"):
                outcomes = Counter()
                for _ in range(STREAMS):
                    call = channel.stream_stream(f"/findings.Log/{method}")()
                    await call.write(b"entry")
                    await call.read()
                    if how == "cancel":
                        call.cancel()
                    else:
                        await call.done_writing()
                    outcomes[await seen.get()] += 1
                for outcome, count in outcomes.items():
                    print(f"  {method}, client calls {how}: {count} times {outcome}")
                if how == "cancel":
                    looked_finished.append(
                        sum(
                            count
                            for outcome, count in outcomes.items()
                            if outcome.startswith("end of input, cancelled() False, done() False")
                        )
                    )
    await server.stop(None)
    if all(looked_finished):
        print("cancelled streams looked finished")
        return 0
    print("CHANGED: a handler can tell the two ends apart")
    return 1


sys.exit(asyncio.run(main()))
END
