"""Measures the effect of hostile peers on honest callers: `python -m tests.system.hostile`.

It ends with exit code 1 if a row breaks one of its bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasklogs_server.settings import ServerSettings
from tests.support.fixtures import reaper
from tests.system.hostile.memory import MIB, SMALL, ceiling
from tests.system.hostile.options import ALL_TOKENS_TOGETHER, behaviours_of, names_of, parse
from tests.system.hostile.readers import KINDS, readers
from tests.system.hostile.rounds import Comparison, Plan, attackers, compare
from tests.system.hostile.served import Mode, Served, served
from tests.system.hostile.verdict import UNEXPECTED, broken

_SHARE, _SHARE_TOGETHER = 0.15, 0.4
_TOGETHER_QUIET_SECONDS = 30.0
# What the attackers hold open at the same time with their tokens.
_SENDING_AGENTS, _STREAMS = 12, 3_000


def main() -> int:
    options = parse(__doc__)
    modes = list(Mode) if options.mode == "both" else [Mode(options.mode)]
    return max(asyncio.run(_measure(mode, options)) for mode in modes)


async def _measure(mode: Mode, options: argparse.Namespace) -> int:
    """Print the table of one mode. Return the exit code."""
    limits = {} if options.default_limits else SMALL
    most = ceiling(
        ServerSettings.model_validate(limits), sending_agents=_SENDING_AGENTS, streams=_STREAMS
    )
    with tempfile.TemporaryDirectory(prefix="tasklogs-hostile-") as directory:
        variables = {name: str(value) for name, value in limits.items()}
        async with (
            served(Path(directory), mode, **variables) as server,
            readers(server) as reading,
            attackers() as attacking,
        ):
            target = await (server.target() if mode is Mode.PLAIN else server.target_of_tokens())
            await reading.read_for(options.seconds)  # warms up
            print(f"\n## {mode}: {options.rounds} rounds of {options.seconds:g} s each\n")
            print(*_head(), sep="\n")
            compared = []
            for name in names_of(options, mode):
                one = await compare(
                    name,
                    behaviours_of(name),
                    target=target,
                    server=server.process,
                    reading=reading,
                    attacking=attacking,
                    plan=_plan(name, options, most),
                )
                print(_row(one), flush=True)
                compared.append(one)
                if one.peak_bytes > most:
                    break  # what it left in memory would count against the next rows
            return _summary(compared, server, most)


def _plan(name: str, options: argparse.Namespace, most: int) -> Plan:
    if name == ALL_TOKENS_TOGETHER:
        quiet = min(_TOGETHER_QUIET_SECONDS, options.together_seconds)
        return Plan(1, quiet, options.together_seconds, _SHARE_TOGETHER, most)
    return Plan(options.rounds, options.seconds, options.seconds, _SHARE, most)


def _head() -> Iterator[str]:
    columns = ["behaviour", "opened, sent a round"]
    columns += [f"{kind}: p50, p99 ms quiet > busy > hostile" for kind in KINDS]
    columns += [f"{kind}: p99 ratio (rounds)" for kind in KINDS]
    columns += ["longest s", "failed", "server's cores", "RSS MB, peak", "files", "back after s"]
    columns += ["attackers were told"]
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"


def _row(one: Comparison) -> str:
    tallies = [tally for each in one.tallies for tally in each.values()]
    opened = sum(tally["opened"] for tally in tallies) // len(one.tallies)
    sent = sum(tally["sent"] for tally in tallies) // len(one.tallies)
    cells = [one.name, f"{opened}, {sent}"]
    for kind in KINDS:
        p50, p99 = (
            [one.quantile(which, kind, share) * 1000 for which in ("quiet", "busy", "hostile")]
            for share in (0.5, 0.99)
        )
        cells.append(", ".join(" > ".join(f"{each:.1f}" for each in both) for both in (p50, p99)))
    for kind in KINDS:
        ratios = one.ratios(kind)
        cells.append(f"{one.ratio(kind):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    cells.append(f"{one.longest():.2f}")
    cells.append(str(len(one.failures)))
    cells.append(f"{one.cores:.2f}")
    footprints = (one.before, one.during, one.after)
    rss = " > ".join(f"{each.rss / 1e6:.0f}" for each in footprints)
    cells.append(f"{rss}, {one.peak_bytes / 1e6:.0f}")
    cells.append(" > ".join(str(each.files) for each in footprints))
    cells.append(f"{one.back_seconds:.1f}")
    cells.append(", ".join(f"{code} {count}" for code, count in one.ends().most_common()))
    return f"| {' | '.join(cells)} |"


def _summary(compared: Sequence[Comparison], server: Served, most: int) -> int:
    """Print the verdict. Return the exit code."""
    print(f"\nthe server's ceiling of memory by its settings: {most // MIB} MiB")
    bad = [f"{one.name}: {what}" for one in compared for what in broken(one, most)]
    print(f"bounds that are broken: {len(bad)}", *bad, sep="\n  ")
    failures = [f"{one.name}: {failure}" for one in compared for failure in one.failures]
    print(f"honest calls that failed: {len(failures)}", *failures[:10], sep="\n  ")
    said = server.program.said.splitlines()
    unexpected = [line for line in said if any(word in line for word in UNEXPECTED)]
    print(f"lines of the server's log: {len(said)}, unexpected ones: {len(unexpected)}")
    print(*unexpected[:10], sep="\n")
    print(f"done at {time.strftime('%H:%M:%S', time.gmtime())} UTC", flush=True)
    return 1 if bad or unexpected else 0


if __name__ == "__main__":
    reaper.start()
    sys.exit(main())
