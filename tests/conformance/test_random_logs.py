"""Random logs, random breaks: in every language a follow yields the final log, each event once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.conformance.drivers import Driver
from tests.support.fakes.changing_log import Break, Change, ChangingLog
from tests.support.fakes.followed_log import FollowedLog
from tests.support.fakes.log_server import log_server
from tests.support.fixtures.conditions import DEADLINE_SECONDS

LOGS = 60


def random_log(seed: int) -> ChangingLog:
    rng = random.Random(seed)
    kinds = [*Change, Change.APPEND, Change.GROW]
    changes = [
        (
            rng.choice(kinds),
            "".join(rng.choices("aé漢😀\n", k=rng.randint(1, 4))) * rng.choice((1, 1, 1, 200)),
            rng.randint(0, 8),
        )
        for _ in range(rng.randint(0, 25))
    ]
    breaks = [(rng.randint(0, 6), rng.choice(list(Break))) for _ in range(rng.randint(0, 8))]
    return ChangingLog(changes, breaks)


@pytest.mark.parametrize("part", range(4))
async def test_a_follow_yields_the_whole_log_and_repeats_nothing(driver: Driver, part: int) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS), log_server() as server:
        for seed in range(part, LOGS, 4):
            played = random_log(seed)
            server.play = played.play
            lines = await driver.follow(server.address, until_status="PAUSED")
            check(lines, played.log, f"seed {seed}")


def check(lines: list[dict[str, Any]], log: FollowedLog, why: str) -> None:
    view: dict[tuple[int, int], str] = {}
    revisions: list[int] = []
    for line in lines:
        match line["event"]:
            case "epoch":
                revisions.append(line["revision"])
            case "withdrawn":
                revisions.append(line["revision"])
                view.pop((line["epoch"], line["id"]), None)
            case "entries":
                for change in line["changes"]:
                    key = (line["epoch"], change["id"])
                    assert bool(change["replaces"]) == (key in view), why
                    check_change(change, view.get(key, ""), log, why)
                    revisions.append(change["revision"])
                    view[key] = change["content"]
    events = [line["event"] for line in lines]
    assert revisions == sorted(set(revisions)), why
    assert (events.count("status"), events.count("caught_up")) == (2, 1), why
    assert events[-1] == "left", why
    assert view == {key: each.content for key, each in log.entries.items()}, why


def check_change(change: dict[str, Any], before: str, log: FollowedLog, why: str) -> None:
    content, kept = change["content"].encode(), change["kept_bytes"]
    assert change["content"] == log.history[change["revision"]].content, why
    assert content[:kept] == before.encode()[:kept], why
    if change["appended"] is not None:
        assert change["content"] == before + change["appended"], why
