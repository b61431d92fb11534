"""An hour of an agent on a bad machine: `python -m tests.system.agent_hour`.

The exit code is 1 if anything was lost, or if an agent did not end as it must.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.support.fixtures import reaper
from tests.system.agent_hour.run import MIB, Pace, run
from tests.system.agent_hour.verdict import broken


def main() -> int:
    pace = Pace()
    parser = argparse.ArgumentParser(prog="python -m tests.system.agent_hour", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long it lasts")
    parser.add_argument("--step", type=float, default=pace.step, help="seconds of each trouble")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tasklogs-agent-hour-") as directory:
        outcomes = asyncio.run(
            run(Path(directory), 60.0 * options.minutes, Pace(step=options.step), _tell)
        )
    is_good = True
    for number, outcome in enumerate(outcomes):
        rss = [f"{one / MIB:.0f}" for one in (outcome.rss_bytes[0], outcome.rss_bytes[-1])]
        _tell(
            f"{number}: {len(outcome.stored)} messages, {outcome.sessions} sessions,"
            f" {outcome.log.count('records.lost')} gaps of the log, {' to '.join(rss)} MiB"
        )
        for what in broken(outcome):
            is_good = False
            _tell(f"{number}: broken: {what}")
    _tell("the run is good" if is_good else "the run is bad")
    return 0 if is_good else 1


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    reaper.start()
    sys.exit(main())
