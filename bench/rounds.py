"""Measuring side by side: every round runs each contestant once, in turns of order."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

Contestant = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Comparison:
    """Two contestants' figures; `ratios` are of the same round, `ratio` is their median."""

    ours: float
    bare: float
    ratio: float
    ratios: list[float]


class Rounds:
    """The figures of all contestants, one per round."""

    def __init__(self, figures: Mapping[str, list[float]]) -> None:
        self.figures = figures

    def compare(self, ours: str, bare: str) -> Comparison:
        mine, theirs = self.figures[ours], self.figures[bare]
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        return Comparison(
            statistics.median(mine), statistics.median(theirs), statistics.median(ratios), ratios
        )


async def interleave(contestants: Mapping[str, Contestant], rounds: int) -> Rounds:
    """Run the contestants A B C, C B A, A B C ...; the first round warms up and does not count.

    The machine's other load and a warming cache then meet all of them alike.
    """
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        order = list(contestants)
        for name in order if number % 2 else reversed(order):
            figure = await contestants[name]()
            if number > 0:
                figures[name].append(figure)
    return Rounds(figures)
