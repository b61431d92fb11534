"""One contestant's part in a client process. It stays connected while the others run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.clients import Worker, together


@dataclass(frozen=True)
class Side:
    """Followers and publishers under one name. bench/publishing.py lists their orders."""

    client: Worker
    name: str

    async def do(self, order: str, **arguments: Any) -> Any:
        """Send one order to the client process. Returns the result of the order."""
        return await self.client.do("side", name=self.name, order=order, arguments=arguments)


async def all_do(sides: Sequence[Side], order: str, **arguments: Any) -> list[Any]:
    """Send an order to all of them at once."""
    return await together([side.do(order, **arguments) for side in sides])
