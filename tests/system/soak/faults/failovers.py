"""A failover to an asynchronous standby: commits that were acknowledged are lost."""

from __future__ import annotations

import asyncio
import random

from tests.system.soak.fault import Fault, LaggingStandby, Part, World

_LONGEST_AWAY_SECONDS = 3.0
_LONGEST_CUT_OFF_SECONDS = 12.0


class FailedOver:
    """The primary dies for good, and the standby that replaces it lacks the last commits.

    Sometimes clients reach the standby before its promotion: reads work, and are older. Sometimes
    the former primary still answers after the promotion, on the connections that are open. And
    sometimes readers and followers are cut off at the failover, some until the logs have grown
    past what was lost: then they come back with cursors from the lost commits.
    """

    name = "database-failed-over"
    parts = frozenset({Part.POSTGRES, Part.DATABASE_NETWORK, Part.READER_NETWORK})
    seconds = (0.5, 12.0)
    lets_calls_finish = False

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        away = chance.uniform(0.0, _LONGEST_AWAY_SECONDS)
        what, replace = chance.choice(_WAYS)
        cut_off = chance.choice((None, None, 0.0, chance.uniform(0.0, _LONGEST_CUT_OFF_SECONDS)))
        try:
            async with world.postgres.lagging_standby() as standby:
                if standby is None:
                    return "nothing was done: Postgres has a small disk, and no standby"
                await asyncio.sleep(seconds)
                if cut_off is not None:
                    await world.reader_network.refuse()
                    world.reader_network.cut()
                await replace(world, standby, away)
            world.database_network.target = world.postgres.socket
            world.database_network.cut()
            await asyncio.sleep(cut_off or 0.0)
        finally:
            world.database_network.target = world.postgres.socket
            if cut_off is not None:
                await world.reader_network.heal()
        readers = "" if cut_off is None else f", readers cut off for {away + cut_off:.1f} s"
        return f"{what} {away:.1f} s later; lost the commits of {seconds:.1f} s{readers}"


async def _replace(_: World, standby: LaggingStandby, away: float) -> None:
    await standby.take_over()
    await asyncio.sleep(away)
    await standby.promote()


async def _replace_early(world: World, standby: LaggingStandby, away: float) -> None:
    await standby.take_over()
    world.database_network.target = standby.socket
    await asyncio.sleep(away)
    await standby.promote()


async def _replace_late(world: World, standby: LaggingStandby, away: float) -> None:
    await standby.promote()
    world.database_network.target = standby.socket
    await asyncio.sleep(away)
    await standby.take_over()


_WAYS = (
    ("killed, and a standby promoted", _replace),
    ("killed, read from a standby, which was promoted", _replace_early),
    ("a standby promoted, and the former primary killed", _replace_late),
)

FAULTS: tuple[Fault, ...] = (FailedOver(),)
