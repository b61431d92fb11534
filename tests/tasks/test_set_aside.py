"""Tasks that are set aside after a failure."""

from __future__ import annotations

from uuid import UUID

import pytest

from tasklogs_server.tasks.set_aside import SetAside

ONE, TWO = UUID(int=1), UUID(int=2)


class Aside:
    """A set-aside list with a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tasks: SetAside[str] = SetAside(lambda: self.now)


@pytest.fixture
def aside() -> Aside:
    return Aside()


def test_a_task_is_due_after_a_second_and_in_the_order_of_time(aside: Aside) -> None:
    assert aside.tasks.next_in() is None
    assert aside.tasks.add(ONE, "one") == 1
    aside.now = 0.5
    aside.tasks.add(TWO, "two")
    assert (len(aside.tasks), ONE in aside.tasks, aside.tasks.next_in()) == (2, True, 0.5)
    assert aside.tasks.pop_due() == []
    aside.now = 1.0
    assert aside.tasks.pop_due() == ["one"]
    assert (len(aside.tasks), ONE in aside.tasks, TWO in aside.tasks) == (1, False, True)
    aside.now = 9.0
    assert aside.tasks.next_in() == 0
    assert aside.tasks.pop_due() == ["two"]


def test_the_time_doubles_up_to_ten_minutes_until_the_task_is_forgotten(aside: Aside) -> None:
    waits = []
    for _ in range(12):
        waits.append(aside.tasks.add(ONE, "one"))
        aside.now += waits[-1]
        assert aside.tasks.pop_due() == ["one"]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]
    aside.tasks.forget(ONE)
    assert aside.tasks.add(ONE, "one") == 1


def test_at_most_ten_thousand_are_held(aside: Aside) -> None:
    for number in range(10_005):
        aside.now += 0.0001
        aside.tasks.add(UUID(int=number), str(number))
    assert len(aside.tasks) == 10_000
    assert UUID(int=4) not in aside.tasks
    assert UUID(int=5) in aside.tasks
    aside.now += 1
    assert len(aside.tasks.pop_due()) == 10_000
