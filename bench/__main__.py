"""`python -m bench [--quick] [--only NAME ...] [--rounds N]`: print the table.

`--checkout DIR` measures another checkout; `--beside DIR` measures it and this one in turns.

Exit code 0: everything was measured, whether or not targets were met. 1: a measurement failed; the
others were measured.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import (
    agent_lists,
    changing_reads,
    follow_bytes,
    follow_fan_out,
    follow_footprint,
    follow_latency,
    footprint,
    large,
    plot,
    purges,
    reads,
    screens,
    table,
    telemetry,
    unread_follows,
    writes,
)
from bench.run import Measurement, Outcome, run
from bench.turns import Turns, in_turns, serving_from
from tests.support.fixtures import reaper

MEASUREMENTS: Mapping[str, Measurement] = {
    "snapshot-many": reads.snapshot_of_many,
    "snapshot-one": reads.snapshot_of_one,
    "snapshot-alone": reads.one_caller,
    "live-one": reads.live_of_one,
    "mix": changing_reads.mix,
    "written": changing_reads.written_task,
    "tail": reads.short_tail,
    "tail-evicted": reads.evicted_tail,
    "pages": reads.whole_log,
    "purge": purges.reads_during_a_purge,
    "commit": writes.committed_entries,
    "grow": writes.growing_answer,
    "memory": footprint.idle_streams,
    "follow-typing": follow_latency.typing,
    "follow-redraws": follow_latency.redrawing,
    "follow-fan-out": follow_fan_out.one_task,
    "follow-many": follow_fan_out.many_tasks,
    "follow-bytes": follow_bytes.growing_answer,
    "screens": screens.recorded_screens,
    "follow-memory": follow_footprint.idle_followers,
    "follow-unread": unread_follows.unread_follows,
    "agent-lists": agent_lists.long_lists,
    "telemetry": telemetry.cost_of_a_read,
    "large": large.large_store,
    "help": footprint.help_page,
}
# Many short rounds: other load on the machine then affects both sides of most rounds equally. In
# 12 rounds, two or three contestants run in each order equally often.
_ROUNDS, _QUICK_ROUNDS = 12, 2
_TURNS = 4


def main(
    words: Sequence[str] | None = None, measurements: Mapping[str, Measurement] = MEASUREMENTS
) -> int:
    """Measure what the command line says, and print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure TaskLogs.")
    parser.add_argument("--quick", action="store_true", help="take a few minutes; write nothing")
    parser.add_argument(
        "--only", nargs="+", choices=list(measurements), help="measure these; write nothing"
    )
    parser.add_argument(
        "--checkout",
        type=Path,
        help="measure the server of this checkout, to compare two versions; write nothing",
    )
    parser.add_argument(
        "--beside", type=Path, help="compare with this checkout, in turns; write nothing"
    )
    parser.add_argument("--turns", type=int, default=_TURNS, help=f"of --beside; default {_TURNS}")
    parser.add_argument("--rounds", type=int, help=f"default {_ROUNDS}")
    arguments = parser.parse_args(words)
    rounds = arguments.rounds or (_QUICK_ROUNDS if arguments.quick else _ROUNDS)
    chosen = {name: measurements[name] for name in arguments.only or measurements}
    measure = functools.partial(run, quick=arguments.quick, rounds=rounds)
    about = table.about(rounds=rounds, quick=arguments.quick)
    outcome: Outcome | Turns
    if arguments.beside is not None:
        outcome = asyncio.run(in_turns(chosen, arguments.beside, measure, turns=arguments.turns))
        print(outcome.markdown(about))
    else:
        with serving_from(arguments.checkout):
            outcome = asyncio.run(measure(chosen))
        print(table.markdown(outcome, about))
        if not (arguments.quick or arguments.only or arguments.checkout):
            print(f"written: {table.write(outcome, about)} and {plot.draw()}")
    for name, failure in outcome.failures.items():
        print(f"FAILED: {name}: {failure.reason}\n{failure.details}", file=sys.stderr)
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    # Like Ctrl-C: stop every process that was started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reaper.start()
    sys.exit(main())
