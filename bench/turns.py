"""Two builds in turns: every measurement of this one, and of a checkout beside it."""

from __future__ import annotations

import os
import statistics
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.result import Result
from bench.run import Failure, Measurement, Outcome
from bench.table import figure, grid, microseconds

Run = Callable[[Mapping[str, Measurement]], Awaitable[Outcome]]
_HEADER = ["what", "this", "beside", "this / beside", "spread", "CPU of this", "CPU of beside"]


@dataclass
class Turns:
    """The rows of both builds, by name and turn; and what failed, by measurement and build."""

    this: dict[str, list[Result]] = field(default_factory=dict)
    beside: dict[str, list[Result]] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    def markdown(self, about: str) -> str:
        """Return the table. A ratio is of two figures of one turn; the median of them is shown."""
        rows = [
            _cells(what, mine, self.beside[what])
            for what, mine in self.this.items()
            if len(mine) == len(self.beside.get(what, []))
        ]
        failed = [f"- FAILED: {name}: {one.reason}" for name, one in self.failures.items()]
        return "\n".join([about, "", *grid([_HEADER, *rows]), "", *failed, ""])


async def in_turns(
    measurements: Mapping[str, Measurement], checkout: Path, run: Run, *, turns: int
) -> Turns:
    """Run each measurement so often with each build. The build that begins alternates."""
    measured = Turns()
    for name, measurement in measurements.items():
        for number in range(turns):
            builds = [("this", None, measured.this), ("beside", checkout, measured.beside)]
            for build, path, rows in builds if number % 2 else reversed(builds):
                with serving_from(path):
                    outcome = await run({name: measurement})
                for result in outcome.results:
                    rows.setdefault(result.what, []).append(result)
                for failed, failure in outcome.failures.items():
                    measured.failures[f"{failed} ({build}, turn {number + 1})"] = failure
    return measured


@contextmanager
def serving_from(checkout: Path | None) -> Iterator[None]:
    """Let all child processes import the server and the client of another checkout.

    None: those of this one.
    """
    if checkout is None:
        yield
        return
    packages = [checkout.resolve() / "server", checkout.resolve() / "clients/python"]
    for package in packages:
        if not package.is_dir():
            raise SystemExit(f"no checkout: {package} is missing")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, packages))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _cells(what: str, mine: list[Result], theirs: list[Result]) -> list[str]:
    ratios = [a.ours / b.ours for a, b in zip(mine, theirs, strict=True) if b.ours]
    unit = mine[0].unit
    return [
        what,
        figure(statistics.median(one.ours for one in mine), unit),
        figure(statistics.median(one.ours for one in theirs), unit),
        f"{statistics.median(ratios):.2f}" if ratios else "",
        f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "",
        _cost(mine),
        _cost(theirs),
    ]


def _cost(results: list[Result]) -> str:
    costs = [one.cpu for one in results if one.cpu is not None]
    if not costs:
        return ""
    return microseconds(
        statistics.median(one.server_us for one in costs),
        statistics.median(one.postgres_us for one in costs),
    )
