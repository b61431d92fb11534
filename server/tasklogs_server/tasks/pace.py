"""The pace of work that deletes rows: readers must keep the store."""

from __future__ import annotations

from collections.abc import Callable

# For each second of work. So the work takes a fifth of one connection while there are readers, and
# two thirds of it otherwise.
_REST_BESIDE_READERS = 4.0
_REST_ALONE = 0.5


class Pace:
    """How long such work rests after each step.

    A step takes longer on a busy store. So the work yields to the load of other processes, too.
    """

    def __init__(self, reads_under_way: Callable[[], int]) -> None:
        """`reads_under_way`: how many connections of readers are in use."""
        self._reads_under_way = reads_under_way

    def rest(self, worked_seconds: float) -> float:
        """Return for how many seconds to rest after a step."""
        beside_readers = self._reads_under_way() > 0
        return worked_seconds * (_REST_BESIDE_READERS if beside_readers else _REST_ALONE)
