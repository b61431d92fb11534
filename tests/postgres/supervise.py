"""Supervises one Postgres until stdin closes, in a process that tests can kill.

Run as `python -m tests.postgres.supervise DATA_DIR [namespace|user STATE_ROOT]`. Writes one line of
JSON to stdout when it is ready ("pid", "dsn") or has failed ("error").
"""

import asyncio
import json
import sys
from pathlib import Path

from tasklogs_server.postgres import EmbeddedPostgres, EmbeddedPostgresError
from tasklogs_server.postgres.candidates import dedicated_user, stand_in_account
from tasklogs_server.postgres.identity import Identity, UserNamespace


def forced_identity(data_dir: Path, arguments: list[str]) -> Identity | None:
    match arguments:
        case ["namespace"]:
            return UserNamespace(*stand_in_account())
        case ["user", state_root]:
            return dedicated_user(data_dir, Path(state_root))
        case _:
            return None


async def main() -> None:
    data_dir, *rest = sys.argv[1:]
    postgres = EmbeddedPostgres(Path(data_dir), identity=forced_identity(Path(data_dir), rest))
    try:
        async with postgres:
            sys.stdout.write(json.dumps({"pid": postgres.pid, "dsn": postgres.dsn()}) + "\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)
    except EmbeddedPostgresError as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
