"""Random waiting times, so that peers do not all come back at the same time."""

from __future__ import annotations

import random
from datetime import timedelta


def spread(at_least_seconds: float, at_most_seconds: float) -> timedelta:
    """Return a random time within these bounds, after which a refused peer may try again.

    Peers that are refused at the same time must not come back at the same time. They would be
    refused again, and the load would come in waves.
    """
    return timedelta(seconds=random.uniform(at_least_seconds, at_most_seconds))
