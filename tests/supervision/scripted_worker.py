"""A worker that does what its script says. The arguments: SCRIPT, DESCRIPTOR, LOOP.

Steps, separated by commas: `serve` says that it serves; `beat` beats until the supervisor sends no
more; `answer` answers one question for metrics, and `refuse` has none; `fail` refuses to start;
`load` beats once and then does nothing for 3 s; `hang` does nothing more; `exit` ends with status
3. After the last step it ends with status 0.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import Any


def main() -> None:
    script, descriptor, _ = sys.argv[1:]
    supervisor = socket.socket(fileno=int(descriptor))
    lines = supervisor.makefile("r")
    order = json.loads(lines.readline())

    def send(**message: Any) -> None:
        supervisor.sendall(json.dumps(message).encode() + b"\n")

    for step in script.split(","):
        match step:
            case "serve":
                send(serves=True)
            case "beat":
                while not select.select([supervisor], [], [], 0.05)[0]:
                    send(beat=True)
            case "answer":
                send(answer=json.loads(lines.readline())["ask"], families=[order["worker"]])
            case "refuse":
                send(answer=json.loads(lines.readline())["ask"], families=None)
            case "fail":
                send(failed="the keys are broken")
            case "load":
                send(beat=True)
                time.sleep(3)
            case "hang":
                time.sleep(600)
            case "exit":
                sys.exit(3)


if __name__ == "__main__":
    main()
