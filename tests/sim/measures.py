"""Counts and distributions that a run collects."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Times:
    """Times of one kind, in seconds."""

    seconds: list[float] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        self.seconds.append(seconds)

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile in milliseconds; not a number if there are no times."""
        if not self.seconds:
            return math.nan
        ordered = sorted(self.seconds)
        index = min(len(ordered) - 1, int(len(ordered) * percent / 100))
        return round(ordered[index] * 1000, 3)

    def summary(self) -> dict[str, float]:
        return {
            "count": len(self.seconds),
            "median_ms": self.percentile_ms(50),
            "p99_ms": self.percentile_ms(99),
            "max_ms": self.percentile_ms(100),
        }


@dataclass
class Measures:
    """All that a run counts. `reset` begins the time that is measured."""

    counts: Counter[str] = field(default_factory=Counter)
    lag: Times = field(default_factory=Times)
    """From a commit to a follower in another process."""
    lag_here: Times = field(default_factory=Times)
    """From a commit to a follower in the same process."""
    ack: Times = field(default_factory=Times)
    """From an append to its ack, at the agent."""
    read: Times = field(default_factory=Times)
    """A live read in another process than the session's."""
    read_here: Times = field(default_factory=Times)
    """A live read in the session's process."""
    back: Times = field(default_factory=Times)
    """From the loss of a session to the next one of its agent."""
    follower_back: Times = field(default_factory=Times)
    """From the loss of a follow to the first message of the next one."""

    def reset(self) -> None:
        self.counts.clear()
        for times in self._times().values():
            times.seconds.clear()

    def _times(self) -> dict[str, Times]:
        return {name: one for name, one in vars(self).items() if isinstance(one, Times)}

    def summary(self, seconds: float) -> dict[str, object]:
        """Return everything, with counts per second of virtual time."""
        return {
            "seconds": round(seconds, 3),
            "per_second": {
                name: round(count / seconds, 1) for name, count in sorted(self.counts.items())
            },
            "times": {name: one.summary() for name, one in self._times().items() if one.seconds},
        }


def share(parts: Sequence[float], whole: float) -> tuple[float, float]:
    """Return the mean and the largest of the parts, as shares of the whole."""
    if not parts or whole <= 0:
        return 0.0, 0.0
    return round(sum(parts) / len(parts) / whole, 4), round(max(parts) / whole, 4)
