"""Look for inputs that break a decoder.

    python -m tests.fuzz [TARGET ...] [--seconds 600] [--jobs 2]

Exit code 0: nothing was found. 1: something was found; the paths of its files are printed. 2: bad
usage, or an engine that is not installed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.campaign import Outcome, fuzz
from tests.fuzz.registry import TARGETS, load
from tests.fuzz.target import Engine
from tests.support.fixtures import reaper

_NO_ATHERIS = (
    "atheris is not installed: there are builds for Linux on x86_64 and CPython 3.11 to 3.14 only."
    " `--engine hypothesis` runs without, and without coverage."
)


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    if options.replay is not None:
        return _replay(options.targets, options.replay)
    engines = {
        name: options.engine or load(name).engine for name in options.targets or list(TARGETS)
    }
    if Engine.COVERAGE in engines.values() and importlib.util.find_spec("atheris") is None:
        print(_NO_ATHERIS, file=sys.stderr)
        return 2
    print(f"{len(engines)} targets, {options.seconds} s each, --seed {options.seed}", flush=True)
    try:
        outcomes = asyncio.run(_all(engines, options))
    except KeyboardInterrupt:
        return 130
    for outcome in outcomes:
        for path in outcome.findings:
            print(f"{outcome.name}: {path}")
        if outcome.trouble is not None:
            print(f"{outcome.name}: {outcome.trouble}")
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"all, or some of: {', '.join(TARGETS)}"
    )
    parser.add_argument("--seconds", type=int, default=600, help="per target (600)")
    parser.add_argument("--jobs", type=int, default=2, help="targets that run at once (2)")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31), help="(any)")
    parser.add_argument("--engine", type=Engine, help="use this engine for all targets")
    parser.add_argument("--directory", type=Path, default=Path(".fuzz"), help="(.fuzz)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run only this input")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}")
    if options.replay is not None and len(options.targets) != 1:
        parser.error("--replay needs exactly one target")
    if options.seconds < 1 or options.jobs < 1:
        parser.error("--seconds and --jobs must be at least 1")
    return options


def _replay(targets: Sequence[str], path: Path) -> int:
    with load(targets[0])() as target:
        target.run(path.read_bytes())
    print("nothing was found")
    return 0


async def _all(engines: dict[str, Engine], options: argparse.Namespace) -> list[Outcome]:
    turns = asyncio.Semaphore(options.jobs)
    print(
        f"{'target':20} {'engine':10} {'inputs':>10} {'inputs/s':>9} {'slowest ms':>10}"
        f" {'edges':>6} {'findings':>8}",
        flush=True,
    )

    async def one(name: str, engine: Engine) -> Outcome:
        async with turns:
            outcome = await fuzz(
                name,
                engine,
                seconds=options.seconds,
                seed=options.seed,
                directory=options.directory,
            )
        print(_row(outcome), flush=True)
        return outcome

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one(name, engine)) for name, engine in engines.items()]
    return [task.result() for task in running]


def _row(outcome: Outcome) -> str:
    rate = outcome.inputs / outcome.seconds if outcome.seconds else 0.0
    edges = "-" if outcome.edges is None else str(outcome.edges)
    found = len(outcome.findings)
    return (
        f"{outcome.name:20} {outcome.engine.value:10} {outcome.inputs:10} {rate:9.0f}"
        f" {outcome.slowest_seconds * 1000:10.0f} {edges:>6} {found:8}"
        + (" (ended early)" if outcome.trouble else "")
    )


if __name__ == "__main__":
    reaper.start()
    sys.exit(main(sys.argv[1:]))
