"""A client process: reads commands from stdin, one JSON line each, and answers on stdout.

An answer is a JSON object with `result`, or with `failure` and the error.

Each worker is a process, because one Python client would be the bottleneck. A run starts several.
End of input ends the worker.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from bench.agents import Agents
from bench.load import Load
from bench.publishing import Sides
from bench.reason import reason
from bench.upsert import Upserts
from bench.writers import Writers


async def main() -> None:
    load, agents, upserts, writers = Load(), Agents(), Upserts(), Writers()
    commands: dict[str, Callable[..., Awaitable[Any]]] = {
        "load": load.run,
        "open_agents": agents.open,
        "flood": agents.flood,
        "open_idle": agents.open_idle,
        "close_agents": agents.close,
        "open_upserts": upserts.open,
        "upsert": upserts.run,
        "open_writers": writers.open,
        "write": writers.write,
        "mix": writers.mix,
        "mix_bare": writers.mix_bare,
        "close_writers": writers.close,
        "side": Sides().do,
    }
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, arguments = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"result": await commands[command](**arguments)}
        except Exception as error:  # fails this command; the next row needs this process
            traceback.print_exc()
            answer = {"failure": reason(error)}
        print(json.dumps(answer), flush=True)
    await agents.close()
    await writers.close()
    await load.close()


if __name__ == "__main__":
    uvloop.run(main())
