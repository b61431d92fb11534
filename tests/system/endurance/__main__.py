"""A week of calls in an hour: `python -m tests.system.endurance`.

It ends with exit code 1 if a call ended in a way that it must not, or if the server holds more
after the last tenth than after the first.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tasklogs_server.store.migrate import migrate
from tests.support.fixtures import reaper
from tests.support.fixtures.postgres import FAST, PostgresServer
from tests.system.endurance.run import Amounts, Record, endure
from tests.system.endurance.verdict import broken


def main() -> int:
    most = Amounts()
    parser = argparse.ArgumentParser(prog="python -m tests.system.endurance", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="the share of a whole run")
    parser.add_argument("--answered", type=int, default=most.answered, help="answered calls")
    parser.add_argument("--refused", type=int, default=most.refused, help="refused calls")
    parser.add_argument("--sessions", type=int, default=most.sessions, help="agent streams")
    parser.add_argument("--follows", type=int, default=most.follows, help="follows")
    options = parser.parse_args()
    amounts = Amounts(options.answered, options.refused, options.sessions, options.follows)
    with tempfile.TemporaryDirectory(prefix="tasklogs-endurance-") as name:
        directory = Path(name)
        with PostgresServer(directory / "postgres", FAST) as postgres:
            postgres.start()
            postgres.run(migrate(postgres.dsn()))
            record = asyncio.run(
                endure(amounts.scaled(options.scale), directory, postgres.dsn(), _tell)
            )
    return _report(record)


def _report(record: Record) -> int:
    """Print counts and verdict. Return the exit code."""
    by_name: dict[str, Counter[str]] = {}
    for (name, status), count in sorted(record.ended.items()):
        by_name.setdefault(name, Counter())[status] += count
    for name, statuses in by_name.items():
        _tell(f"{name}: {', '.join(f'{key} {count}' for key, count in statuses.most_common())}")
    bad = list(broken(record))
    for what in bad:
        _tell(f"broken: {what}")
    _tell("the run is bad" if bad else "the run is good")
    return 1 if bad else 0


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    reaper.start()
    sys.exit(main())
