"""Random readers against a growing log: `python -m tests.system.readers --minutes 10 --seed 1`.

It prints what each reader did, and ends with exit code 1 at the first event that was lost or came
twice.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tasklogs_server.store.migrate import migrate
from tests.support.fixtures import reaper
from tests.support.fixtures.postgres import FAST, PostgresServer
from tests.system.readers.async_readers import read_at_random
from tests.system.readers.growing_log import GrowingLog, Seen, growing_log
from tests.system.readers.sync_readers import log_in_a_thread, read_without_asyncio


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.system.readers", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None, help="a random one if it is left out")
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--sync", action="store_true", help="one reader without asyncio")
    options = parser.parse_args()
    seed = random.randrange(1 << 30) if options.seed is None else options.seed
    _tell(f"seed {seed}")
    with (
        tempfile.TemporaryDirectory(prefix="tasklogs-readers-") as name,
        PostgresServer(Path(name) / "postgres", FAST) as postgres,
    ):
        postgres.start()
        postgres.run(migrate(postgres.dsn()))
        seconds = options.minutes * 60
        if options.sync:
            _run_sync(postgres.dsn(), seed, seconds)
        else:
            asyncio.run(_run(postgres.dsn(), seed, options.readers, seconds))
    return 0


async def _run(dsn: str, seed: int, readers: int, seconds: float) -> None:
    async with growing_log(dsn, seed) as log:
        _tell_all(log, await read_at_random(log, seed, readers, seconds))


def _run_sync(dsn: str, seed: int, seconds: float) -> None:
    with log_in_a_thread(dsn, seed) as thread:
        reader = read_without_asyncio(thread, seed, seconds)
        _tell(f"{reader.alarms.raised} alarms")
        _tell_all(thread.log, [reader.seen])


def _tell_all(log: GrowingLog, readers: list[Seen]) -> None:
    for number, seen in enumerate(readers):
        counts = ", ".join(f"{name} {count}" for name, count in sorted(seen.counts.items()))
        _tell(f"reader {number}: {seen.events} events; {counts}")
    _tell(f"{log.entries} entries, {log.network.cuts} cuts: nothing lost, nothing twice")


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    reaper.start()
    sys.exit(main())
