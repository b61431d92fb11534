"""Waiting times that differ, for peers that would otherwise come back together."""

from __future__ import annotations

import random
from datetime import timedelta


def spread(at_least_seconds: float, at_most_seconds: float) -> timedelta:
    """Return a random time within these bounds, to tell a refused peer when to try again.

    Peers that are refused in the same moment must not all come back in the same moment: they would
    be refused again, and the load would come in waves.
    """
    return timedelta(seconds=random.uniform(at_least_seconds, at_most_seconds))
