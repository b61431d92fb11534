"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> int:
    """Return the cores that this process may run on, and not more than its container may use.

    A container with a limit of 2 CPUs on a machine of 64 cores sees all 64. `quota` is the file
    in which Linux (cgroup v2) tells the limit: microseconds of CPU time, and the period for them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, _limit_in(quota) or sys.maxsize))


def _limit_in(quota: Path) -> int | None:
    try:
        allowed, period = quota.read_text().split()
        return math.ceil(int(allowed) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # "max": there is no limit
        return None
