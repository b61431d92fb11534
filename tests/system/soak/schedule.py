"""The schedule of the faults: a pure function of the seed."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.system.soak import faults
from tests.system.soak.fault import Fault

_OVERLAPS = 0.3
"""The probability that the next fault begins before the last one ends."""
_FIRST_SECONDS = 2.0


@dataclass(frozen=True)
class Planned:
    """A planned fault: its begin after the start, its length in seconds, and its own randomness."""

    number: int
    at_seconds: float
    fault: Fault
    seconds: float
    seed: int

    @property
    def ends_seconds(self) -> float:
        """When it ends, if nothing takes longer than planned."""
        return self.at_seconds + self.seconds


def all_faults() -> list[Fault]:
    """Return every kind of fault in tests.system.soak.faults, by name."""
    found: list[Fault] = []
    for module in pkgutil.iter_modules(faults.__path__):
        found += importlib.import_module(f"{faults.__name__}.{module.name}").FAULTS
    return sorted(found, key=lambda fault: fault.name)


def plan(
    seed: int,
    kinds: Sequence[Fault],
    seconds: float,
    *,
    quiet_seconds: float,
    longest_seconds: float,
) -> list[Planned]:
    """Plan faults for this long. Each kind comes about equally often.

    quiet_seconds: about how long there is no fault between two that do not overlap.
    longest_seconds: no fault is planned to last longer.
    """
    chance = random.Random(f"{seed} schedule")
    planned: list[Planned] = []
    waiting: list[Fault] = []
    at = _FIRST_SECONDS
    while kinds:
        if not waiting:
            waiting = list(kinds)
            chance.shuffle(waiting)
        fault = waiting.pop()
        lasts = min(chance.uniform(*fault.seconds), longest_seconds)
        if at + lasts > seconds:
            break
        planned.append(Planned(len(planned) + 1, at, fault, lasts, chance.getrandbits(32)))
        if chance.random() < _OVERLAPS:
            at += chance.uniform(0, lasts)
        else:
            at += lasts + chance.uniform(0.5, 1.5) * quiet_seconds
    return planned
