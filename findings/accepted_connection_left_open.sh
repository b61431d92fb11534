#!/bin/sh
# asyncio leaves a connection open, without a protocol, if its server closes right after accepting.
#
# Guess: `Server.close()` only stops listening. A connection that was accepted before gets its
#   protocol and works. If asyncio had to drop it, it would close the socket.
# Instead: between the accept and the transport, `close()` makes asyncio fail its own assertion. The
#   protocol gets no `connection_made`. Only debug mode reports it. The socket stays open until a
#   garbage collection: the client connects, sends, and waits for an answer that never comes.
# Versions: CPython 3.11.7. uvloop 0.23.0 gives the connection its protocol.
# Why it matters: if a log service closes one listener and runs on, clients wait until their
#   deadlines and do not try again. Tests that restart servers fail with an earlier ResourceWarning.
# What we do: tests/support/fakes/stream_server.py (`close`) stops accepting, waits until accepted
#   connections have their transports, and then closes the server.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check uvloop==0.23.0
timeout 50 "$work/venv/bin/python" -W ignore::ResourceWarning - <<'END'
import asyncio
import gc
import socket
import sys

import uvloop


def answer_within(client, seconds):
    client.settimeout(seconds)
    try:
        return "the end of the connection" if client.recv(1) == b"" else "an answer"
    except TimeoutError:
        return "nothing"
    except ConnectionResetError:
        return "a reset"


async def close_after_accept():
    """Return what happened to the protocol, what the loop was told, and what the client reads."""
    loop = asyncio.get_running_loop()
    protocol_events, reports = [], []

    class Answering(asyncio.Protocol):
        def __init__(self):
            protocol_events.append("made")

        def connection_made(self, transport):
            protocol_events.append("connected")
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    loop.set_exception_handler(
        lambda _, context: reports.append(f"{context['message']}: {context.get('exception')!r}")
    )
    server = await loop.create_server(Answering, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        client.sendall(b"x")
        # Within one step of the loop, timers come after sockets: close() comes after the accept.
        loop.call_later(0, server.close)
        await asyncio.sleep(0.2)
        reads = [await asyncio.to_thread(answer_within, client, 1)]
        gc.collect()
        reads.append(await asyncio.to_thread(answer_within, client, 1))
    await asyncio.sleep(0.1)
    return protocol_events, reports, reads


def run(name, **options):
    with asyncio.Runner(**options) as runner:
        protocol_events, reports, reads = runner.run(close_after_accept())
    print(f"{name}:")
    print(f"  protocol: {', '.join(protocol_events)}; reported: {', '.join(reports) or 'nothing'}")
    print(f"  the client reads {reads[0]}; after a garbage collection {reads[1]}")
    return protocol_events, reads[0]


gc.disable()  # no collection comes by chance
print(f"CPython {sys.version.split()[0]}, uvloop {uvloop.__version__}")
left_open = (["made"], "nothing")
as_found = [
    run("asyncio") == left_open,
    run("asyncio in debug mode", debug=True) == left_open,
    run("uvloop", loop_factory=uvloop.new_event_loop) == (["made", "connected"], "an answer"),
]
print("asyncio left the connection open" if all(as_found) else "CHANGED")
sys.exit(0 if all(as_found) else 1)
END
