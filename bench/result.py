"""One line of the table."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.cpu import CpuCost
from bench.rounds import Comparison


@dataclass(frozen=True)
class Result:
    """Our figure, the bare one, their ratio, and the target.

    `at_most`: the ratio (or, without one, our figure) must not be above the target; otherwise it
    must not be below. `target` None: no target. `shown`: what an experiment reached. `per_cpu`: see
    bench.rounds.Comparison. `cpu` is what one call (entry, message, change; or MB, for rates in
    bytes) costs, and `bare_cpu` the same for the bare side.
    """

    what: str
    ours: float
    unit: str
    bare: float | None = None
    ratio: float | None = None
    ratios: list[float] = field(default_factory=list)
    target: float | None = None
    at_most: bool = False
    shown: str = "-"
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

    @property
    def target_text(self) -> str:
        """The target with its unit, if it is not for the ratio."""
        if self.target is None:
            return "-"
        unit = f" {self.unit}" if self.ratio is None else ""
        return f"{'<= ' if self.at_most else ''}{self.target:g}{unit}"


def compared(
    what: str,
    comparison: Comparison,
    *,
    unit: str,
    target: float | None = None,
    at_most: bool = False,
    shown: str = "-",
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
        shown=shown,
        at_most=at_most,
        note=note,
        per_cpu=comparison.per_cpu,
        cpu=_of_unit(comparison.cpu, unit),
        bare_cpu=_of_unit(comparison.bare_cpu, unit),
    )


def _of_unit(cost: CpuCost | None, unit: str) -> CpuCost | None:
    return cost if cost is None or unit != "bytes/s" else cost.of(1_000_000)
