"""Runs measurements one after the other. Each has processes of its own."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from bench.clients import ClientError
from bench.reason import reason
from bench.result import Result
from bench.stage import Stage, open_stage

Measurement = Callable[[Stage], Awaitable[list[Result]]]


@dataclass(frozen=True)
class Failure:
    """Why a measurement has no rows. `reason` is one line, `details` the traceback."""

    reason: str
    details: str


@dataclass
class Outcome:
    """What a run measured, and the measurements that failed, by name."""

    results: list[Result] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)


async def run(measurements: Mapping[str, Measurement], *, quick: bool, rounds: int) -> Outcome:
    """Measure everything. A measurement that fails costs no other one.

    Each has a fresh Postgres, fresh servers and fresh clients. What another one leaves behind (its
    memory, its rows, a purge, a client that is lost) would be measured too.
    """
    outcome = Outcome()
    for name, measurement in measurements.items():
        began = time.perf_counter()
        try:
            async with open_stage(quick=quick, rounds=rounds) as stage:
                outcome.results += await measurement(stage)
        except Exception as error:
            outcome.failures[name] = Failure(_first_reason(error), traceback.format_exc())
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return outcome


def _first_reason(error: BaseException) -> str:
    """Return the first error: what follows it is often a clean-up that failed too."""
    while (before := error.__context__) is not None and not error.__suppress_context__:
        error = before
    return str(error) if isinstance(error, ClientError) else reason(error)
