"""What the checks of several servers find, in handmade runs and in servers with a mistake."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.system.soak.contents import mark
from tests.system.soak.finding import Kind
from tests.system.soak.ledger import Failover, Sessions
from tests.system.soak.options import Options
from tests.system.soak.plants import PLANTS
from tests.system.soak.report import lines
from tests.system.soak.run import chosen, soak
from tests.system.soak.small_run import ANSWER, SmallRun, refused
from tests.system.soak.verdict import judge


@pytest.fixture
def run() -> SmallRun:
    return SmallRun()


def kinds(run: SmallRun) -> set[Kind]:
    return {finding.kind for finding in run.judged().findings}


# --- sessions


def _supersede(run: SmallRun) -> None:
    """Let a second stream get its Welcome before the last append of the first one."""
    tail = [2, 7, run.entries[2].mark]
    welcome = {"t": 13.5, "kind": "welcome", "epoch": 1, "entries": 3, "revision": 6, "tail": tail}
    run.wire[10:10] = [
        {"pid": 2, "stream": 1, "t": 13.4, "kind": "hello"},
        {"pid": 2, "stream": 1, **welcome},
    ]


def test_an_acknowledged_append_of_a_superseded_session_is_found(run: SmallRun) -> None:
    _supersede(run)
    assert kinds(run) == {Kind.SESSIONS}
    run.wire.pop()  # without its ack
    assert Kind.SESSIONS not in kinds(run)


def test_the_former_primary_of_a_failover_may_take_an_append_of_a_superseded_session(
    run: SmallRun,
) -> None:
    _supersede(run)
    run.failovers = [Failover(since=13.1, killed=14.3, promoted=13.3)]
    assert Kind.SESSIONS not in kinds(run)


@pytest.mark.parametrize(
    "sessions", [Sessions(1, [1, 1], [1]), Sessions(1, [0, 0], [1]), Sessions(2, [0, 2], [1, 1])]
)
def test_sessions_that_are_not_where_the_store_says_are_found(
    run: SmallRun, sessions: Sessions
) -> None:
    run.ending.sessions = sessions
    assert kinds(run) == {Kind.SESSIONS}


# --- leaks


@pytest.mark.parametrize(
    "more",
    [{"tasks": 100}, {"files": 100}, {"threads": 30}, {"rss_bytes": 500 << 20}],
    ids=lambda more: next(iter(more)),
)
def test_what_an_idle_server_still_holds_is_found(run: SmallRun, more: dict[str, int]) -> None:
    held = run.held["server-2"]
    held[-1] = replace(held[-1], **more)  # type: ignore[arg-type]
    assert kinds(run) == {Kind.LEAK}
    run.ending.idle_since = math.inf  # it was not idle
    assert kinds(run) == set()


# --- the calm


def test_a_read_that_is_refused_while_all_is_well_is_found(run: SmallRun) -> None:
    run.reads = [refused("UNAVAILABLE", "AGENT_UNREACHABLE", retry=True)]
    assert kinds(run) == set()
    run.ending.calm = (19.0, 21.0)
    assert kinds(run) == {Kind.WRONG_ANSWER}


def test_a_change_that_comes_late_to_a_follower_while_all_is_well_is_found(run: SmallRun) -> None:
    run.ending.calm = (11.0, 20.0)
    assert kinds(run) == set()
    run.follow[-1]["t"] += 2.0
    assert kinds(run) == {Kind.LATE}
    run.wire[7]["t"] += 1.0  # such a slow ack shows that the machine is too busy
    assert kinds(run) == set()


def test_a_later_state_of_an_answer_does_as_well(run: SmallRun) -> None:
    run.ending.calm = (11.0, 20.0)
    run.follow[-2:] = [{**run.follow[-1], "t": 14.015, "changes": [[2, 7, 4, mark(ANSWER)]]}]
    assert kinds(run) == set()


# --- which faults there are


def test_the_bus_fails_only_where_servers_meet() -> None:
    names = {
        (servers, bus): {
            kind.name
            for kind in chosen(Options(servers=servers, bus=bus))
            if kind.name.startswith("bus")
        }
        for servers in (1, 3)
        for bus in ("postgres", "nats")
    }
    ways = {"bus-cut", "bus-half-open", "bus-out-of-order", "bus-refused"}
    assert names[1, "postgres"] == names[1, "nats"] == set()
    assert names[3, "postgres"] == ways
    assert names[3, "nats"] == {*ways, "bus-nodes-killed", "bus-nodes-stopped"}


# --- real servers

# With three tasks, each reader is at the server of its session one time in six. With six tasks, it
# is one time in ninety, and sessions move.
WITH_MISTAKES = Options(
    seconds=20.0,
    tasks=6,
    seed=2,
    servers=3,
    plants=tuple(sorted(PLANTS)),
    least_faults=4,
    only=("two-agents",),
    quiet_seconds=0.5,
    longest_seconds=6.0,
    pause_seconds=0.1,
    read_seconds=0.05,
    settle_seconds=20.0,
)


@pytest.mark.timeout(420)
async def test_mistakes_of_the_servers_are_found(tmp_path: Path) -> None:
    told: list[str] = []
    verdict = judge(await soak(WITH_MISTAKES, tmp_path, told.append))
    told += lines(verdict)
    found = {finding.kind for finding in verdict.findings}
    # In this order: answers-unsynced, ignores-fences, leaks-tasks.
    assert found >= {Kind.STALE, Kind.SESSIONS, Kind.LEAK}, "\n".join(told)
    # loses-moved
    assert found & {Kind.LATE, Kind.UNSETTLED}, "\n".join(told)
    assert len(PLANTS) == 4
