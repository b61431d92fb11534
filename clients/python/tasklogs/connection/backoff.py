"""How long to wait before the next attempt to connect."""

from __future__ import annotations

import random

_MOST_DOUBLINGS = 30  # more would overflow and change nothing


def growing_seconds(failures: int, *, first: float, cap: float, rng: random.Random) -> float:
    """Return the wait after so many failures in a row, from 1.

    `first` x 2^(failures - 1), at most `cap`, less up to half of it by chance.
    """
    ceiling = min(cap, first * 2 ** min(failures - 1, _MOST_DOUBLINGS))
    return rng.uniform(ceiling / 2, ceiling)


def asked_seconds(asked: float, *, cap: float, rng: random.Random) -> float:
    """Return the wait where the server said how long, up to `cap`, plus up to half of it by chance.

    Clients that were told the same must not return at the same moment.
    """
    return min(max(0.0, asked), cap) * rng.uniform(1.0, 1.5)
