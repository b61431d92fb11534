"""Simulates many server processes in virtual time; prints a table, and writes JSON.

    python -m tests.sim [--processes 100] [--tasks 1000000] [--bus nats|postgres] ...

docs/scaling.md says what is real code here, what is a model, and what came out.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.sim.run import simulate
from tests.sim.world import Size

_NOTES = ("beat", "moved", "all", "session", "follows", "follows_all", "sync", "missed")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--appends", type=float, default=15_000, help="per second, of all agents")
    parser.add_argument("--followers", type=int, default=10_000)
    parser.add_argument("--reads", type=float, default=1_000, help="live reads per second")
    parser.add_argument("--bus", choices=["nats", "postgres"], default="nats")
    parser.add_argument("--postgres-cores", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a phase, virtual")
    parser.add_argument("--phase", action="append", default=[], help="only this one")
    parser.add_argument("--json", type=Path, default=Path(".sim/results.json"))
    arguments = parser.parse_args()
    size = Size(
        arguments.processes,
        arguments.tasks,
        arguments.appends,
        arguments.followers,
        arguments.reads,
        bus=arguments.bus,
        postgres_cores=arguments.postgres_cores,
        seed=arguments.seed,
    )
    print(
        f"{size.processes} processes, {size.tasks:,} tasks, {size.appends:,.0f} appends/s,"
        f" {size.followers:,} followers, {size.reads:,.0f} live reads/s,"
        f" bus {size.bus}, seed {size.seed}",
        flush=True,
    )
    found = simulate(size, _print, phases=arguments.phase, seconds=arguments.seconds)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"size": asdict(size), **found}, indent=1) + "\n")
    print(f"logs: {found['logs']}")
    print(f"written: {arguments.json}")


def _print(phase: dict[str, Any]) -> None:
    rates, times = phase["per_second"], phase["times"]
    notes = ", ".join(
        f"{kind} {rates[f'notes {kind}']:,.0f}" for kind in _NOTES if f"notes {kind}" in rates
    )
    print(f"\n{phase['name']} ({phase['seconds']:.1f} s, {phase['real_cpu_seconds']} s of CPU)")
    print(
        f"  commits {_rate(rates, 'commits')}, statements {_rate(rates, 'statements')},"
        f" payloads {_rate(rates, 'payloads')}, deliveries {_rate(rates, 'deliveries')},"
        f" delivered {rates.get('bytes delivered', 0) / 1e6:.2f} MB/s; gaps {phase['gaps']}"
    )
    print(f"  notes/s: {notes}")
    print("  cpu: " + ", ".join(f"{name} {share:.1%}" for name, share in phase["cpu"].items()))
    for name, one in times.items():
        print(
            f"  {name:14} {one['count']:8,} median {one['median_ms']:10.2f} ms,"
            f" p99 {one['p99_ms']:10.2f} ms, max {one['max_ms']:10.2f} ms"
        )
    sys.stdout.flush()


def _rate(rates: dict[str, float], name: str) -> str:
    return f"{rates.get(name, 0):,.0f}/s"


main()
