"""Side-by-side measurement: each round runs every contestant once, in alternating order."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

Contestant = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Comparison:
    """Two contestants' figures. `ratios` are of one round each; `ratio` is their median.

    `per_cpu` is the same median for work per second of CPU time, over all processes of the run. It
    is correct even if other work on the machine takes CPU from one contestant.
    """

    ours: float
    bare: float
    ratio: float
    ratios: list[float]
    per_cpu: float | None = None


class Rounds:
    """The figures of all contestants, one per round."""

    def __init__(
        self, figures: Mapping[str, list[float]], cores: Mapping[str, list[float]]
    ) -> None:
        self.figures = figures
        self._cores = cores

    def compare(self, ours: str, bare: str) -> Comparison:
        mine, theirs = self.figures[ours], self.figures[bare]
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        cores = zip(ratios, self._cores[ours], self._cores[bare], strict=True)
        per_cpu = [ratio * b / a for ratio, a, b in cores if a and b]
        return Comparison(
            statistics.median(mine),
            statistics.median(theirs),
            statistics.median(ratios),
            ratios,
            statistics.median(per_cpu) if per_cpu else None,
        )


async def interleave(
    contestants: Mapping[str, Contestant],
    rounds: int,
    cpu_seconds: Callable[[], float] = lambda: 0.0,
) -> Rounds:
    """Run the contestants A B C, C B A, A B C ...; the first round warms up and does not count.

    Other load on the machine and a warming cache then affect all contestants equally. `cpu_seconds`
    returns what the processes of the run have used so far.
    """
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    cores: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        order = list(contestants)
        for name in order if number % 2 else reversed(order):
            began, used = time.perf_counter(), cpu_seconds()
            figure = await contestants[name]()
            if number > 0:
                figures[name].append(figure)
                cores[name].append((cpu_seconds() - used) / (time.perf_counter() - began))
    return Rounds(figures, cores)
