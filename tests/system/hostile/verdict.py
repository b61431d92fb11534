"""What is wrong with a row of the table: a bound that it breaks."""

from __future__ import annotations

from collections.abc import Iterator

from tests.system.hostile.memory import MIB
from tests.system.hostile.readers import KINDS
from tests.system.hostile.rounds import Comparison

MOST_TIMES_SLOWER = 2.0
UNEXPECTED = ("Traceback", "rpc.failed", "INTERNAL", "[error", "[critical")
"""No line of the server's log may contain these."""


def broken(compared: Comparison, ceiling_bytes: int) -> Iterator[str]:
    """Yield each bound that the row breaks, in words."""
    for kind in KINDS:
        ratio = compared.ratio(kind)
        if not ratio <= MOST_TIMES_SLOWER:  # also if no call was answered: nan
            yield f"{kind}: the 99th percentile is {ratio:.1f} times that beside a busy process"
    if compared.peak_bytes > ceiling_bytes:
        peak, most = compared.peak_bytes // MIB, ceiling_bytes // MIB
        yield f"the server took {peak} MiB of memory, and its ceiling is {most} MiB"
    if compared.failures:
        yield f"{len(compared.failures)} honest calls failed, first: {compared.failures[0]}"
