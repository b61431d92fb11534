"""The agent as a process: what its signals mean."""

from __future__ import annotations

import asyncio
import signal

from tasklogs.agent.run import Agent, Options
from tasklogs.tracing.base import Tracing
from tasklogs.v1.task_agents_pb2 import Goodbye


class LeftWithoutGoodbye(Exception):
    """The server did not confirm the goodbye. `str()` says why."""


def run(options: Options, tracing: Tracing | None = None) -> None:
    """Run an agent until a signal ends it.

    SIGTERM: the workspace pauses. SIGINT: only the agent stops. Raises Fatal where there is nothing
    more to do, LeftWithoutGoodbye where a goodbye was wanted and not confirmed.
    """
    asyncio.run(_run(Agent(options, tracing=tracing)))


async def _run(agent: Agent) -> None:
    running = asyncio.create_task(agent.run())

    def leave(reason: Goodbye.Reason.ValueType) -> None:
        if agent.departure.is_wanted:
            running.cancel()  # told twice: no more patience
        agent.departure.want(reason)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, leave, Goodbye.REASON_PAUSING)
    loop.add_signal_handler(signal.SIGINT, leave, Goodbye.REASON_STOPPING)
    try:
        await running
    except TimeoutError as error:
        raise LeftWithoutGoodbye(str(error)) from None
    except asyncio.CancelledError:
        raise LeftWithoutGoodbye("a second signal came") from None
