"""One line of the table."""

from __future__ import annotations

from dataclasses import dataclass

from bench.cpu import CpuCost
from bench.rounds import Comparison


@dataclass(frozen=True)
class Result:
    """Our figure, the bare one, their ratio, and the target.

    `at_most`: the ratio (or, without one, our figure) must not be above the target; otherwise it
    must not be below. `target` None: no target. `per_cpu`: see bench.rounds.Comparison. `cpu` is
    what one call (entry, message, change; or MB, for rates in bytes) costs, and `bare_cpu` the same
    for the bare side.
    """

    what: str
    ours: float
    bare: float | None
    unit: str
    ratio: float | None
    ratios: list[float]
    target: float | None
    target_text: str
    prototype: str
    at_most: bool = False
    note: str = ""
    per_cpu: float | None = None
    cpu: CpuCost | None = None
    bare_cpu: CpuCost | None = None

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        figure = self.ours if self.ratio is None else self.ratio
        return figure <= self.target if self.at_most else figure >= self.target


def compared(
    what: str,
    comparison: Comparison,
    *,
    unit: str,
    target: float | None,
    prototype: str,
    at_most: bool = False,
    note: str = "",
) -> Result:
    """Make a line from the figures of two contestants. The target is for their ratio."""
    return Result(
        what=what,
        ours=comparison.ours,
        bare=comparison.bare,
        unit=unit,
        ratio=comparison.ratio,
        ratios=comparison.ratios,
        target=target,
        target_text="-" if target is None else f"{'<= ' if at_most else ''}{target:g}",
        prototype=prototype,
        at_most=at_most,
        note=note,
        per_cpu=comparison.per_cpu,
        cpu=_of_unit(comparison.cpu, unit),
        bare_cpu=_of_unit(comparison.bare_cpu, unit),
    )


def _of_unit(cost: CpuCost | None, unit: str) -> CpuCost | None:
    return cost if cost is None or unit != "bytes/s" else cost.of(1_000_000)
