"""Measures the effect of hostile peers on honest readers: `python -m tests.system.hostile`."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.fixtures import reaper
from tests.system.hostile.behaviours import BEHAVIOURS, CONTROL
from tests.system.hostile.readers import KINDS, readers
from tests.system.hostile.rounds import Comparison, attackers, compare
from tests.system.hostile.served import Mode, Served, served

ALL_TOGETHER = "all of them together"
_UNEXPECTED = ("Traceback", "rpc.failed", "INTERNAL", "[error", "[critical")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.system.hostile", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of quiet and hostile rounds")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each round")
    parser.add_argument("--mode", choices=[*Mode, "both"], default="both")
    parser.add_argument(
        "--only", action="append", default=[], help="only behaviours with this in their name"
    )
    options = parser.parse_args()
    names = [
        name
        for name in (*BEHAVIOURS, ALL_TOGETHER)
        if not options.only or any(one in name for one in options.only)
    ]
    modes = list(Mode) if options.mode == "both" else [Mode(options.mode)]
    for mode in modes:
        asyncio.run(_measure(mode, names, options.rounds, options.seconds))


async def _measure(mode: Mode, names: Sequence[str], rounds: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="tasklogs-hostile-") as directory:
        # The server limits the calls of one caller. All honest readers here are one busy subject.
        async with (
            served(Path(directory), mode, calls_per_second="1000") as server,
            readers(server) as reading,
            attackers() as attacking,
        ):
            target = await server.target()
            await reading.read_for(seconds)  # warms up
            print(f"\n## {mode}: {rounds} rounds of {seconds:g} s each\n")
            print(*_head(), sep="\n")
            compared = []
            for name in names:
                together = [one for one in BEHAVIOURS if one != CONTROL]
                one = await compare(
                    name,
                    together if name == ALL_TOGETHER else [name],
                    target=target,
                    server=server.process,
                    reading=reading,
                    attacking=attacking,
                    rounds=rounds,
                    seconds=seconds,
                )
                print(_row(one), flush=True)
                compared.append(one)
            print(*_summary(compared, server), sep="\n", flush=True)


def _head() -> Iterator[str]:
    columns = ["behaviour", "opened, sent a round"]
    columns += [f"{kind}: p50, p99 ms quiet > hostile" for kind in KINDS]
    columns += [f"{kind}: p99 ratio (rounds)" for kind in KINDS]
    columns += ["failed", "server's cores", "RSS MB", "files", "back after s"]
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"


def _row(one: Comparison) -> str:
    tallies = [tally for each in one.tallies for tally in each.values()]
    opened = sum(tally["opened"] for tally in tallies) // len(one.tallies)
    sent = sum(tally["sent"] for tally in tallies) // len(one.tallies)
    cells = [one.name, f"{opened}, {sent}"]
    for kind in KINDS:
        p50, p99 = (
            [one.quantile(which, kind, share) * 1000 for which in ("quiet", "hostile")]
            for share in (0.5, 0.99)
        )
        cells.append(f"{p50[0]:.1f} > {p50[1]:.1f}, {p99[0]:.1f} > {p99[1]:.1f}")
    for kind in KINDS:
        ratios = one.ratios(kind)
        cells.append(f"{one.ratio(kind):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    cells.append(str(len(one.failures)))
    cells.append(f"{one.cores:.2f}")
    footprints = (one.before, one.during, one.after)
    cells.append(" > ".join(f"{each.rss / 1e6:.0f}" for each in footprints))
    cells.append(" > ".join(str(each.files) for each in footprints))
    cells.append(f"{one.back_seconds:.1f}")
    return f"| {' | '.join(cells)} |"


def _summary(compared: Sequence[Comparison], server: Served) -> Iterator[str]:
    past = [one.name for one in compared if one.worst() > 2 and one.name != CONTROL]
    yield f"\nslower than twice the quiet 99th percentile: {', '.join(past) or 'none'}"
    failures = [f"{one.name}: {failure}" for one in compared for failure in one.failures]
    yield f"honest calls that failed: {len(failures)}"
    yield from failures[:10]
    said = server.program.said.splitlines()
    unexpected = [line for line in said if any(word in line for word in _UNEXPECTED)]
    yield f"lines of the server's log: {len(said)}, unexpected ones: {len(unexpected)}"
    yield from unexpected[:10]
    yield f"done at {time.strftime('%H:%M:%S', time.gmtime())} UTC"


if __name__ == "__main__":
    reaper.start()
    main()
