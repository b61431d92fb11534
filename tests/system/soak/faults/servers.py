"""Which of several servers a fault affects."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.system.soak.fault import Fault, Server

_SEVERAL = 0.25


def some_servers(servers: Sequence[Server], chance: random.Random) -> Sequence[Server]:
    """Choose one server, or sometimes several, in random order."""
    count = 1
    if len(servers) > 1 and chance.random() < _SEVERAL:
        count = chance.randint(2, len(servers))
    return chance.sample(list(servers), count)


def names_of(servers: Sequence[Server]) -> str:
    """Return their names for the report of a fault."""
    return ", ".join(one.name for one in servers)


FAULTS: tuple[Fault, ...] = ()
