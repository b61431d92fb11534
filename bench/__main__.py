"""`python -m bench [--quick] [--only NAME ...] [--rounds N] [--checkout DIR]`: print the table.

Exit code 0: everything was measured, whether or not targets were met. 1: a measurement failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from bench import (
    follow_bytes,
    follow_fan_out,
    follow_footprint,
    follow_latency,
    footprint,
    large,
    purges,
    reads,
    table,
    telemetry,
    writes,
)
from bench.result import Result
from bench.stage import Stage, open_stage
from tests.support.fixtures import reaper

MEASUREMENTS: Mapping[str, Callable[[Stage], Awaitable[list[Result]]]] = {
    "snapshot-many": reads.snapshot_of_many,
    "snapshot-one": reads.snapshot_of_one,
    "live-one": reads.live_of_one,
    "tail": reads.short_tail,
    "pages": reads.whole_log,
    "purge": purges.reads_during_a_purge,
    "commit": writes.committed_entries,
    "grow": writes.growing_answer,
    "memory": footprint.idle_streams,
    "follow-latency": follow_latency.change_to_follower,
    "follow-fan-out": follow_fan_out.fan_out,
    "follow-bytes": follow_bytes.growing_answer,
    "follow-memory": follow_footprint.idle_followers,
    "telemetry": telemetry.cost_of_a_read,
    "large": large.large_store,
    "help": footprint.help_page,
}
# Many short rounds: other load on the machine then affects both sides of most rounds equally.
_ROUNDS, _QUICK_ROUNDS = 11, 2


def main() -> int:
    # Like Ctrl-C: stop every process that was started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure TaskLogs.")
    parser.add_argument("--quick", action="store_true", help="take about a minute; write nothing")
    parser.add_argument(
        "--only", nargs="+", choices=list(MEASUREMENTS), help="measure these; write nothing"
    )
    parser.add_argument(
        "--checkout",
        type=Path,
        help="measure the server of this checkout, to compare two versions; write nothing",
    )
    parser.add_argument("--rounds", type=int, help=f"default {_ROUNDS}")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (_QUICK_ROUNDS if arguments.quick else _ROUNDS)
    if arguments.checkout is not None:
        _serve_from(arguments.checkout)
    chosen = arguments.only or list(MEASUREMENTS)
    results, failures = asyncio.run(_measure(chosen, quick=arguments.quick, rounds=rounds))
    about = table.about(rounds=rounds, quick=arguments.quick)
    print(table.markdown(results, about))
    for name, failure in failures.items():
        print(f"FAILED: {name}\n{failure}", file=sys.stderr)
    if not (arguments.quick or arguments.only or arguments.checkout):
        print(f"written: {table.write(results, about, failures)}")
    return 1 if failures else 0


def _serve_from(checkout: Path) -> None:
    """Make all child processes import the server and the client of another checkout."""
    packages = [checkout.resolve() / "server", checkout.resolve() / "clients/python"]
    for package in packages:
        if not package.is_dir():
            raise SystemExit(f"no checkout: {package} is missing")
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, packages))


async def _measure(
    names: list[str], *, quick: bool, rounds: int
) -> tuple[list[Result], dict[str, str]]:
    results: list[Result] = []
    failures: dict[str, str] = {}
    async with open_stage(quick=quick, rounds=rounds) as stage:
        for name in names:
            began = time.perf_counter()
            try:
                results += await MEASUREMENTS[name](stage)
            except Exception:  # one failed measurement must not lose the figures of the others
                failures[name] = traceback.format_exc()
            print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return results, failures


if __name__ == "__main__":
    reaper.start()
    sys.exit(main())
