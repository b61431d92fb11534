"""A server of a run: `tasklogs serve` on a clock that a file moves, which records what it holds.

    python -m tests.system.soak.server_process --clock FILE --journal FILE --listen=ADDRESS \\
        --metrics-listen=ADDRESS --database-url=URL --bus=BUS [--bus-database-url=URL] \\
        [--plant=NAME ...] [--workers=N]

Records of `server-N.jsonl`, and of `server-N-worker-M.jsonl` of a worker, one every second:

    held    pid, tasks, files, threads, rss_bytes, names: {task: how many of it}
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import uvloop

from tests.system.soak import plants
from tests.system.soak.journal import Journal
from tests.system.soak.moved_clock import MovedClock

_EVERY_SECONDS = 1.0
_NAMES = 12


def main() -> None:
    """Serve as `tasklogs serve` does."""
    parser = options("A server of the soak.")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--bus", required=True)
    parser.add_argument("--metrics-listen", required=True)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    prepare(given)
    uvloop.run(_serve(given))


def options(description: str) -> argparse.ArgumentParser:
    """Return a parser of what a server and its workers are given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--clock", type=Path, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--bus-database-url")
    parser.add_argument("--plant", action="append", default=[], choices=sorted(plants.PLANTS))
    return parser


def prepare(given: argparse.Namespace) -> None:
    """Change this process as it was given, before the server is imported."""
    if given.plant:
        plants.plant(given.plant, given.journal.with_name(plants.UP))
    if given.bus_database_url is not None:
        _meet_over(given.bus_database_url)


async def _serve(given: argparse.Namespace) -> None:
    from tasklogs_server.settings import ServerSettings

    names = ("listen", "database_url", "bus", "metrics_listen")
    settings: dict[str, Any] = {name: getattr(given, name) for name in names}
    if given.workers > 1:
        settings["workers"] = given.workers
        serve = _with_workers(given)
    else:
        from tasklogs_server import app  # a supervisor must not load it

        serve = partial(app.serve, clock=MovedClock(given.clock).now)
    async with recording(given.journal):
        await serve(
            ServerSettings(**settings),
            on_progress=_say,
            on_ready=lambda address: _say(f"serving on {address}"),
        )


def _with_workers(given: argparse.Namespace) -> Any:
    """Return the supervisor's `serve`. It then starts workers of the soak: worker_process."""
    program = ["-m", "tests.system.soak.worker_process", f"--clock={given.clock}"]
    program += [f"--journal={given.journal}", *(f"--plant={one}" for one in given.plant)]
    if given.bus_database_url is not None:
        program.append(f"--bus-database-url={given.bus_database_url}")
    # Not before the mistakes are planted.
    from tasklogs_server.supervision import service, worker_process

    vars(worker_process)["_PROGRAM"] = tuple(program)
    return service.serve


def _meet_over(url: str) -> None:
    """Let the bus have another way to the database, so that a fault can be the bus's alone."""
    from tasklogs_server.store import store
    from tasklogs_server.store.connect import SESSION_SETTINGS

    connect = vars(store)["connect"]

    async def connect_over(dsn: str, settings: Any = SESSION_SETTINGS, **more: Any) -> Any:
        is_bus = settings is store._BUS_SETTINGS
        return await connect(url if is_bus else dsn, settings, **more)

    vars(store)["connect"] = connect_over


@asynccontextmanager
async def recording(file: Path) -> AsyncIterator[None]:
    """Record within the block what this process holds."""
    running = asyncio.create_task(_record(Journal(file)))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait({running})


async def _record(journal: Journal) -> None:
    process = psutil.Process()
    while True:
        names = Counter(_name(task) for task in asyncio.all_tasks())
        journal.note(
            kind="held",
            pid=process.pid,
            tasks=names.total(),
            files=process.num_fds(),
            threads=process.num_threads(),
            rss_bytes=process.memory_info().rss,
            names=dict(names.most_common(_NAMES)),
        )
        await asyncio.sleep(_EVERY_SECONDS)


def _name(task: asyncio.Task[Any]) -> str:
    coroutine: Any = task.get_coro()
    return str(getattr(coroutine, "__qualname__", coroutine))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main()
