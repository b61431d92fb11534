"""The agent as a process: what its signals do."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace

import structlog

from tasklogs.agent.run import Agent, Options
from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.options import AUTO
from tasklogs.agent.threads import UnawaitedThreads
from tasklogs.publish.departure import LeftWithoutGoodbye
from tasklogs.tracing.base import Tracing
from tasklogs.v1.task_agents_pb2 import Goodbye
from tasklogs.version import version

_log = structlog.get_logger(__name__)


def run(options: Options, tracing: Tracing | None = None) -> None:
    """Run an agent until a signal stops it.

    SIGTERM: the workspace pauses. SIGINT and SIGHUP: only the agent stops. Raises Fatal if the
    agent cannot go on, LeftWithoutGoodbye if the server did not confirm the goodbye.
    """
    asyncio.run(_run(options, tracing))


async def _run(options: Options, tracing: Tracing | None) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(UnawaitedThreads())
    if options.source == AUTO:
        name = await _chosen_source(options)
        if name is None:
            return
        options = replace(options, source=name)
    agent = Agent(options, tracing=tracing)
    running = asyncio.create_task(agent.run())
    has_signal = False

    def leave(reason: Goodbye.Reason.ValueType) -> None:
        nonlocal has_signal
        if has_signal:
            running.cancel()  # stop waiting
        has_signal = True
        agent.departure.want(reason)

    loop.add_signal_handler(signal.SIGTERM, leave, Goodbye.REASON_PAUSING)
    loop.add_signal_handler(signal.SIGINT, leave, Goodbye.REASON_STOPPING)
    # Not for `nohup`. It counts as no second signal: a shell that ends sends it beside others.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, agent.departure.want, Goodbye.REASON_STOPPING)
    _say_start(agent, options)
    try:
        await running
    except asyncio.CancelledError:
        raise LeftWithoutGoodbye("a second signal came") from None


async def _chosen_source(options: Options) -> str | None:
    """Return the source that is chosen; None if a signal came before there was one."""
    from tasklogs.agent.sources.auto import chosen_source

    choosing = asyncio.create_task(chosen_source(options.of_source, Settings(), time.monotonic))
    leaves = asyncio.Event()

    def leave() -> None:
        leaves.set()
        choosing.cancel()

    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(one) is not signal.SIG_IGN:
            loop.add_signal_handler(one, leave)
    await asyncio.wait({choosing})
    return None if leaves.is_set() else choosing.result()


def _say_start(agent: Agent, options: Options) -> None:
    _log.info(
        "agent.started",
        version=version(),
        server=options.server,
        tls=options.tls is not None,
        source=options.source,
        place=agent.source.place,
        build_number=options.build_number,
    )
