"""Acts as another process of some user: what can it reach of an embedded Postgres?

Run by root as `python -I -S intruder.py UID GID SOCKET_DIRECTORY CLUSTER PID`. It becomes that user
and prints a JSON object: the name of each attempt, and "reached" or the name of the error.
"""

import json
import os
import socket
import struct
import sys
from collections.abc import Callable

STARTUP_VERSION = 196608
IS_AUTHENTICATED = b"R\0\0\0\x08\0\0\0\0"


def connect(directory: str) -> None:
    """Log in as the superuser of Postgres."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(f"{directory}/.s.PGSQL.5432")
        parameters = b"user\0postgres\0database\0postgres\0\0"
        client.sendall(struct.pack("!ii", 8 + len(parameters), STARTUP_VERSION) + parameters)
        answer = client.recv(9)
        if answer != IS_AUTHENTICATED:
            raise PermissionError(answer)


def read(path: str) -> None:
    """Read a file."""
    with open(path, "rb") as file:  # noqa: PTH123 (python -S: only what is quick to import)
        file.read(1)


def attempt(reach: Callable[[], object]) -> str:
    """Return how an attempt ended."""
    try:
        reach()
    except OSError as error:
        return type(error).__name__
    return "reached"


def main() -> None:
    """Become the user, try everything, and print the result."""
    uid, gid = int(sys.argv[1]), int(sys.argv[2])
    directory, cluster, pid = sys.argv[3:]
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    attempts: dict[str, Callable[[], object]] = {
        "connect": lambda: connect(directory),
        "read the data": lambda: read(f"{cluster}/PG_VERSION"),
        "list the data": lambda: os.listdir(cluster),  # noqa: PTH208
        "enter through /proc": lambda: os.listdir(f"/proc/{pid}/cwd/"),  # noqa: PTH208
        "read its memory": lambda: read(f"/proc/{pid}/mem"),
        "signal": lambda: os.kill(int(pid), 0),
    }
    sys.stdout.write(json.dumps({name: attempt(reach) for name, reach in attempts.items()}))


if __name__ == "__main__":
    main()
