"""A worker of a server of a run: the server's worker, changed as server_process changes a server.

python -m tests.system.soak.worker_process --clock FILE --journal FILE ... DESCRIPTOR LOOP
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from tests.system.soak.moved_clock import MovedClock
from tests.system.soak.server_process import options, prepare, recording


def main() -> int:
    """Serve until the supervisor wants an end."""
    parser = options("A worker of a server of the soak.")
    parser.add_argument("descriptor")
    parser.add_argument("loop")
    given = parser.parse_args()
    prepare(given)
    # Not before the mistakes are planted.
    from tasklogs_server import app, worker

    vars(app)["run"] = partial(app.run, clock=MovedClock(given.clock).now)
    serve = vars(worker)["_serve"]

    async def recorded(link: Any) -> None:
        journal: Path = given.journal
        async with recording(journal.with_stem(f"{journal.stem}-worker-{link.worker}")):
            await serve(link)

    vars(worker)["_serve"] = recorded
    sys.argv[1:] = [given.descriptor, given.loop]
    return int(worker.main())


if __name__ == "__main__":
    sys.exit(main())
