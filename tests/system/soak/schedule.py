"""Which fault happens when: a pure function of the seed."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.system.soak import faults
from tests.system.soak.fault import Fault

_OVERLAPS = 0.3
"""How likely the next fault begins before the last is over."""
_FIRST_SECONDS = 2.0


@dataclass(frozen=True)
class Planned:
    """A fault to come: seconds from the begin of the faults, how long, and its own chance."""

    number: int
    at_seconds: float
    fault: Fault
    seconds: float
    seed: int

    @property
    def ends_seconds(self) -> float:
        """When it is to be over, if nothing takes longer."""
        return self.at_seconds + self.seconds


def all_faults() -> list[Fault]:
    """Return every kind that tests.system.soak.faults has, by name."""
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
    """Plan faults for so long, each kind about as often as any other.

    quiet_seconds: about how long nothing is at fault between two that do not overlap.
    longest_seconds: none is to last longer.
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
