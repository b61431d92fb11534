"""Which tails are released, and when."""

from __future__ import annotations

from dataclasses import dataclass

from tasklogs_server.limits.tail_budget import TailBudget


@dataclass
class Tail:
    """A tail in memory."""

    tail_bytes: int
    tail_idle_seconds: float
    is_in_use: bool = False

    def release_tail(self) -> None:
        if not self.is_in_use:
            self.tail_bytes = 0


def test_tails_that_did_not_change_for_30_s_are_released() -> None:
    tails = [Tail(10, 29.0), Tail(10, 30.0)]
    budget = TailBudget(100)
    budget.add(lambda: tails)

    budget.release()

    assert [tail.tail_bytes for tail in tails] == [10, 0]
    assert budget.held_bytes == 10


def test_above_the_limit_the_tails_that_are_idle_longest_are_released() -> None:
    sessions, feeds = [Tail(40, 1.0), Tail(40, 5.0)], [Tail(40, 3.0), Tail(40, 0.0)]
    budget = TailBudget(100)
    budget.add(lambda: sessions)
    budget.add(lambda: feeds)

    budget.release()

    assert [tail.tail_bytes for tail in (*sessions, *feeds)] == [40, 0, 0, 40]


def test_a_tail_that_is_in_use_stays_and_others_go_instead() -> None:
    tails = [Tail(80, 9.0, is_in_use=True), Tail(80, 1.0)]
    budget = TailBudget(100)
    budget.add(lambda: tails)

    budget.release()

    assert [tail.tail_bytes for tail in tails] == [80, 0]
