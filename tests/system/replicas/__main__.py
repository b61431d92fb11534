"""What the loss of one of two replicas costs: `python -m tests.system.replicas`.

It prints how long agents and followers were without a stream, and which reads were refused. It ends
with exit code 1 if a follower missed an entry or got one twice.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tasklogs_server.store.migrate import migrate
from tests.support.fixtures import reaper
from tests.support.fixtures.postgres import PostgresServer
from tests.system.replicas.run import lose_a_replica


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.system.replicas", description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000, help="agents, and followers")
    parser.add_argument("--bus", choices=("postgres", "nats"), default="postgres")
    parser.add_argument("--how", choices=("killed", "drained"), nargs="*")
    parser.add_argument(
        "--say", type=float, default=10.0, help="seconds between an agent's entries"
    )
    options = parser.parse_args()
    is_good = True
    for how in options.how or ("killed", "drained"):
        with tempfile.TemporaryDirectory(prefix="tasklogs-replicas-") as name:
            directory = Path(name)
            with PostgresServer(directory / "postgres") as postgres:
                postgres.start()
                postgres.run(migrate(postgres.dsn()))
                outcome = asyncio.run(
                    lose_a_replica(
                        directory,
                        postgres.dsn(),
                        tasks=options.tasks,
                        bus=options.bus,
                        is_killed=how == "killed",
                        say_seconds=options.say,
                        tell=_tell,
                    )
                )
        _tell(f"{how}, {options.bus}, {options.tasks} tasks:\n{outcome}")
        is_good &= not outcome.wrong
    return 0 if is_good else 1


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    reaper.start()
    sys.exit(main())
