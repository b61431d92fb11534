"""Every hostile behaviour for some seconds, against a server whose time limits are one second.

The assertions hold on any machine. `python -m tests.system.hostile` measures how much slower
readers become.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.support.fixtures.conditions import until
from tests.support.fixtures.pace import pace_of
from tests.system.hostile.behaviours import BEHAVIOURS, CONTROL, HALF_OPEN, WITH_A_TOKEN
from tests.system.hostile.peer import Tally
from tests.system.hostile.readers import Readers, readers
from tests.system.hostile.served import Mode, Served, served
from tests.system.hostile.target import Target

MIB = 1024 * 1024
PATIENCE_SECONDS = 1
# A graceful close takes gRPC one round trip, and longer on a loaded machine.
ENDED_WITHIN_SECONDS = PATIENCE_SECONDS + 6.0
ATTACK_SECONDS = 1.5
FILES_MARGIN = 8
UNEXPECTED = ("Traceback", "rpc.failed", "INTERNAL", "UNKNOWN", "[error", "[warning", "[critical")

NOISE = ("random bytes", "random bytes after the preface", "malformed frames")
FLOODS = (
    "CONTINUATION flood",
    "rapid reset",
    "SETTINGS flood",
    "PING flood",
    "header bombs",
    "oversized metadata",
    "calls without a token",
)
UNREAD = (
    "unread reads",
    "unread follows",
    "unread agent streams",
    "follows never read by a gRPC client",
)
OTHERS = ("connections that come and go", "requests without end")

# What the allocator keeps after the peak: headers of one megabyte while they are parsed, and
# responses that nobody read.
GROWTH_BYTES = {NOISE: 40 * MIB, FLOODS: 500 * MIB, UNREAD: 700 * MIB, OTHERS: 60 * MIB}


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("names", [NOISE, FLOODS, UNREAD, OTHERS], ids=lambda names: names[0])
async def test_honest_readers_are_answered_during_an_attack_and_nothing_is_left_after_it(
    database: str, tmp_path: Path, mode: Mode, names: Sequence[str]
) -> None:
    async with (
        served(tmp_path, mode, database_url=database, **impatient()) as server,
        readers(server) as reading,
    ):
        target = await server.target(big_entries=3)
        before, files = server.process.memory_info().rss, server.process.num_fds()
        tallies = {name: Tally() for name in names}
        attacks = [_begun(name, target, tallies[name]) for name in names]
        await until(lambda: all(tally.opened or tally.sent for tally in tallies.values()))

        noted = await reading.read_for(ATTACK_SECONDS)

        assert not any(attack.done() for attack in attacks)
        await _end(attacks)
        assert noted.failures == []
        await _all_is_as_before(server, reading, files)
        growth = server.process.memory_info().rss - before
        assert growth < GROWTH_BYTES[tuple(names)], f"{growth / MIB:.0f} MiB"


@pytest.mark.parametrize("mode", Mode)
async def test_half_open_connections_are_closed_in_time(
    database: str, tmp_path: Path, mode: Mode
) -> None:
    async with (
        served(tmp_path, mode, database_url=database, **impatient()) as server,
        readers(server) as reading,
        pace_of(database) as pace,
    ):
        target = dataclasses.replace(await server.target(big_entries=1), half_open=20)
        files = server.process.num_fds()
        tallies = {name: Tally() for name in HALF_OPEN}
        attacks = [_begun(name, target, tally) for name, tally in tallies.items()]

        noted = await reading.read_for(PATIENCE_SECONDS)
        await until(lambda: all(tally.ended_by_the_server >= 20 for tally in tallies.values()))

        await _end(attacks)
        assert noted.failures == []
        within_seconds = ENDED_WITHIN_SECONDS + pace.slowest_since(0)
        for name, tally in tallies.items():
            assert tally.longest_seconds < within_seconds, name
        await _all_is_as_before(server, reading, files)


async def test_connections_above_the_limit_are_closed_and_their_slots_become_free(
    database: str, tmp_path: Path
) -> None:
    settings = impatient() | {"connections": "40"}
    async with (
        served(tmp_path, Mode.PLAIN, database_url=database, **settings) as server,
        readers(server) as reading,
    ):
        target = dataclasses.replace(await server.target(big_entries=1), half_open=100)
        files = server.process.num_fds()
        # Every way for a connection to end must free its slot, or none would be left.
        for name in sorted(HALF_OPEN):
            tally = Tally()
            attack = _begun(name, target, tally)
            await until(partial(_has_ended, tally, 150))
            assert server.process.num_fds() <= files + 40
            noted = await reading.read_for(0.2)
            assert noted.failures == []
            await _end([attack])

        await until(lambda: _answers(server))


def test_every_behaviour_is_tried() -> None:
    tried = {*NOISE, *FLOODS, *UNREAD, *OTHERS, *HALF_OPEN}
    assert tried == BEHAVIOURS.keys() - WITH_A_TOKEN.keys() - {CONTROL}


def impatient() -> dict[str, str]:
    return {
        "handshake_timeout": str(PATIENCE_SECONDS),
        "connection_idle": str(PATIENCE_SECONDS),
        "request_timeout": str(PATIENCE_SECONDS),
        "answer_timeout": str(PATIENCE_SECONDS),
        "calls_per_second": "1000",
        "log_format": "console",
    }


def _begun(name: str, target: Target, tally: Tally) -> asyncio.Task[None]:
    async def attack() -> None:
        await BEHAVIOURS[name](target, tally)

    return asyncio.create_task(attack(), name=name)


def _has_ended(tally: Tally, count: int) -> bool:
    return tally.ended_by_the_server >= count


async def _end(attacks: Sequence[asyncio.Future[None]]) -> None:
    for attack in attacks:
        attack.cancel()
    await asyncio.gather(*attacks, return_exceptions=True)


async def _all_is_as_before(server: Served, reading: Readers, files: int) -> None:
    await until(lambda: server.process.num_fds() <= files + FILES_MARGIN)
    noted = await reading.read_for(0.3)
    assert noted.failures == []
    said = server.program.said.splitlines()
    assert [line for line in said if any(word in line for word in UNEXPECTED)] == []


async def _answers(server: Served) -> bool:
    async with server.user("alice") as user:
        return user is not None
