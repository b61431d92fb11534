from __future__ import annotations

import pytest

from tasklogs.agent.sources.agentapi.faults import Fault
from tasklogs.agent.sources.agentapi.health import Health
from tasklogs.enums import AppHealth


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(30.0, clock)


def value(health: Health) -> AppHealth:
    return health.value  # read again: mypy would assume the earlier value


def fail(health: Health, clock: Clock, fault: Fault, *, seconds: int) -> None:
    """Fail once per second, beginning now."""
    for _ in range(seconds + 1):
        health.failed(fault)
        clock.seconds += 1
    clock.seconds -= 1


def test_a_task_app_is_initializing_until_it_is_ready(health: Health) -> None:
    assert value(health) is AppHealth.INITIALIZING
    health.answered(ready=False)
    assert value(health) is AppHealth.INITIALIZING
    health.answered(ready=True)
    assert value(health) is AppHealth.HEALTHY


def test_30_s_of_refusals_are_unhealthy_and_29_are_not(health: Health, clock: Clock) -> None:
    health.answered(ready=True)
    fail(health, clock, Fault.DOWN, seconds=29)
    assert value(health) is AppHealth.HEALTHY
    clock.seconds += 1
    health.failed(Fault.DOWN)
    assert value(health) is AppHealth.UNHEALTHY


def test_the_first_good_answer_is_healthy_at_once(health: Health, clock: Clock) -> None:
    health.answered(ready=True)
    fail(health, clock, Fault.DOWN, seconds=60)
    health.answered(ready=True)
    assert value(health) is AppHealth.HEALTHY


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.NONSENSE, Fault.TORN])
def test_timeouts_and_invalid_responses_are_never_unhealthy(
    health: Health, clock: Clock, fault: Fault
) -> None:
    health.answered(ready=True)
    fail(health, clock, fault, seconds=600)
    assert value(health) is AppHealth.HEALTHY


def test_a_timeout_among_the_refusals_begins_the_30_s_again(health: Health, clock: Clock) -> None:
    health.answered(ready=True)
    fail(health, clock, Fault.DOWN, seconds=20)
    health.failed(Fault.TIMEOUT)
    fail(health, clock, Fault.DOWN, seconds=29)
    assert value(health) is AppHealth.HEALTHY


def test_a_task_app_that_never_came_is_unhealthy_after_30_s(health: Health, clock: Clock) -> None:
    fail(health, clock, Fault.DOWN, seconds=30)
    assert value(health) is AppHealth.UNHEALTHY


def test_a_process_that_replaces_another_is_initializing(health: Health) -> None:
    health.answered(ready=True)
    health.answered(ready=False)
    assert value(health) is AppHealth.INITIALIZING
