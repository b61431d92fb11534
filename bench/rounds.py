"""Side-by-side measurement: each round runs every contestant once, in a random order.

The order matters. A slice that follows one of the same contestant finds its caches filled and its
connections awake. With a fixed order (A B C, C B A), A and C have many such slices and B has none:
the same server, measured three times, seemed slower in the middle. So each order comes equally
often, and each slice begins with the same number of calls that are not counted.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.cpu import NOTHING, CpuCost, CpuMeter, CpuSeconds, Measured, no_meter

Slice = Callable[[], Awaitable[float]]
"""Runs for a slice of time. Returns the calls (or entries, messages, bytes) per second."""


@dataclass(frozen=True)
class Contestant:
    """What is measured. `warm_up` runs before each slice. `server`: whose CPU is reported."""

    run: Slice
    warm_up: Slice | None = None
    server: Measured | None = None


@dataclass(frozen=True)
class Comparison:
    """Two contestants' figures. `ratios` are of one round each; `ratio` is their median.

    `per_cpu` is the same median for work per second of CPU time, over all processes of the run. It
    is correct even if other work on the machine takes CPU from one contestant. `cpu` and `bare_cpu`
    are the means over all rounds.
    """

    ours: float
    bare: float
    ratio: float
    ratios: list[float]
    per_cpu: float | None = None
    cpu: CpuCost | None = None
    bare_cpu: CpuCost | None = None


@dataclass(frozen=True)
class Figure:
    """One slice: the rate, how long it took, and the CPU time that was used meanwhile."""

    rate: float
    seconds: float = 0.0
    cpu: CpuSeconds = NOTHING

    @property
    def cores(self) -> float:
        return self.cpu.everything / self.seconds if self.seconds else 0.0


class Rounds:
    """The figures of all contestants, one per round."""

    def __init__(self, figures: Mapping[str, list[Figure]]) -> None:
        self.figures = figures

    def rates(self, name: str) -> list[float]:
        return [figure.rate for figure in self.figures[name]]

    def cost(self, name: str) -> CpuCost | None:
        """Return the CPU time per unit of work. None: it was not measured."""
        figures = self.figures[name]
        work = sum(figure.rate * figure.seconds for figure in figures)
        used = sum((figure.cpu for figure in figures), NOTHING)
        return used.per(work) if used.everything and work else None

    def compare(self, ours: str, bare: str) -> Comparison:
        """Compare rates. A ratio above 1: ours does more per second."""
        mine, theirs = self.rates(ours), self.rates(bare)
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        both = zip(ratios, self.figures[ours], self.figures[bare], strict=True)
        per_cpu = [ratio * b.cores / a.cores for ratio, a, b in both if a.cores and b.cores]
        return Comparison(
            statistics.median(mine),
            statistics.median(theirs),
            statistics.median(ratios),
            ratios,
            statistics.median(per_cpu) if per_cpu else None,
            self.cost(ours),
            self.cost(bare),
        )

    def compare_times(self, ours: str, bare: str, *, per_second: float) -> Comparison:
        """Compare the times of one call. A ratio above 1: ours takes longer.

        `per_second` is the unit of the figures: 1000 for milliseconds.
        """
        mine = [per_second / rate for rate in self.rates(ours)]
        theirs = [per_second / rate for rate in self.rates(bare)]
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        return Comparison(
            statistics.median(mine),
            statistics.median(theirs),
            statistics.median(ratios),
            ratios,
            cpu=self.cost(ours),
            bare_cpu=self.cost(bare),
        )


def orders(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield orders without end: all of them, shuffled, then all of them again."""
    chance = random.Random("orders")  # the same in each run
    every = list(itertools.permutations(names))
    while True:
        chance.shuffle(every)
        yield from every


async def interleave(
    contestants: Mapping[str, Contestant | Slice],
    rounds: int,
    meter: CpuMeter = no_meter,
) -> Rounds:
    """Run every contestant once a round; one round before them warms up and does not count."""
    runs = {
        name: one if isinstance(one, Contestant) else Contestant(one)
        for name, one in contestants.items()
    }
    figures: dict[str, list[Figure]] = {name: [] for name in runs}
    for one in runs.values():
        await one.run()
    for order in itertools.islice(orders(list(runs)), rounds):
        for name in order:
            figures[name].append(await measure(runs[name], meter))
    return Rounds(figures)


async def measure(contestant: Contestant, meter: CpuMeter) -> Figure:
    """Run one slice, after its warm-up."""
    if contestant.warm_up is not None:
        await contestant.warm_up()
    used, began = meter(contestant.server), time.perf_counter()
    rate = await contestant.run()
    seconds = time.perf_counter() - began
    return Figure(rate, seconds, meter(contestant.server) - used)
