"""Spawns the child processes of a run: it forks itself after it has imported what they need.

A hundred interpreters would take minutes of CPU time to start and gigabytes of memory. A fork takes
milliseconds and shares all memory that it does not change. Run as
`python -m tests.system.soak.spawner`. It reads orders from stdin and writes reports to stdout, one
JSON object per line.

    {"start": 7, "entry": MODULE, "argv": [...], "env": {...}, "said": FILE}
    {"start": 8, "entry": null, "argv": ["/usr/bin/env"], "env": {...}, "said": FILE}   exec
    {"signal": 7, "number": 9}
    -> {"started": 7, "pid": 1234}
    -> {"ended": 7, "code": -9}

The end of its stdin means that the harness is gone: it then ends everything that it started. If
this process itself is gone, the kernel does that.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import random
import selectors
import signal
import sys
import traceback
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

# grpc may be imported before a fork, but not used: its core starts only when a channel is
# created.
_PRELOADED = (
    "tests.system.soak.agent_process",
    "tests.system.soak.task_app",
    "tests.system.soak.real_task_app",
    "tasklogs.agent.program",
    "tasklogs.cli.main",
)


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when `parent`, its parent, ends."""
    if _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0 or os.getppid() != parent:
        os._exit(1)


class Spawner:
    """The loop of orders and ends. It has no threads and no asyncio, because it forks."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._orders = os.dup(0)
        self._reports = os.dup(1)
        self._buffered = b""
        self._pids: dict[int, int] = {}
        """By number. Only running children are here, so that no signal hits another process."""
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            for descriptor in (self._orders, self._woken):
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == self._woken:
                        os.read(self._woken, 4096)
                    elif not self._obey():
                        return
                self._reap()

    def end_all(self) -> None:
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)

    def _obey(self) -> bool:
        data = os.read(self._orders, 65536)
        *lines, self._buffered = (self._buffered + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if "start" in order:
                self._start(order)
            elif (pid := self._pids.get(order["signal"])) is not None:
                os.kill(pid, order["number"])
        return bool(data)

    def _start(self, order: dict[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            self._become(order)
        self._pids[order["start"]] = pid
        self._report(started=order["start"], pid=pid)

    def _reap(self) -> None:
        for number, pid in list(self._pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._pids[number]
                self._report(ended=number, code=os.waitstatus_to_exitcode(status))

    def _report(self, **report: int) -> None:
        os.write(self._reports, json.dumps(report).encode() + b"\n")

    def _become(self, order: dict[str, Any]) -> NoReturn:
        code = 1
        try:
            die_with_parent(self._pid)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for descriptor in (self._orders, self._reports, self._woken, self._waker):
                os.close(descriptor)
            said = os.open(order["said"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for descriptor, number in ((nothing, 0), (said, 1), (said, 2)):
                os.dup2(descriptor, number)
            if order["entry"] is None:
                os.execve(order["argv"][0], order["argv"], order["env"])
            os.environ.clear()
            os.environ.update(order["env"])
            random.seed()
            code = _run(order["entry"], order["argv"])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _run(entry: str, argv: list[str]) -> int:
    """Run a module's `main(argv)` as a program."""
    try:
        code = importlib.import_module(entry).main(argv)
    except SystemExit as exit_:
        code = exit_.code
    if isinstance(code, str):
        sys.stderr.write(code + "\n")
        return 1
    return int(code or 0)


def main() -> None:
    os.setsid()  # a Ctrl-C is for the harness only
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection would write to every page that the forks share, and so copy it
    spawner = Spawner()
    try:
        spawner.run()
    finally:
        spawner.end_all()


if __name__ == "__main__":
    parent = os.getppid()
    die_with_parent(parent)
    main()
