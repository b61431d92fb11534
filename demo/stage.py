"""Runs the demo's commands as shown, and stops every process that it started, in every case."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_SECONDS = 85
"""For the whole demo, so that a command that hangs is stopped."""
STOP_SECONDS = 15


class DemoFailed(Exception):
    """Something did not happen as the demo says."""


class Ended(BaseException):
    """A signal ended the demo."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number


class Stage:
    """A directory to work in, and the processes that run in the background.

    Inside the `with`, SIGTERM and SIGINT raise Ended, but not between the start of a process and
    the record of it, and not while the processes are being stopped.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._deadline = time.monotonic() + DEADLINE_SECONDS
        self._background: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._ended_by: int | None = None
        self._holds_signals = False
        self._environment = _environment()
        self._bold, self._dim, self._plain = _styles()

    def __enter__(self) -> Self:
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, self._on_signal)
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._holds_signals = True
        # The server stops last, because the others say goodbye to it.
        for name, _ in reversed(self._background.copy()):
            self.end(name)

    def tell(self, text: str) -> None:
        """Print what comes next."""
        print(f"\n{self._dim}{textwrap.indent(textwrap.fill(text, 76), '# ')}{self._plain}")

    def export(self, variables: Mapping[str, str]) -> None:
        """Set environment variables for all later commands."""
        for name, value in variables.items():
            self._show(f"export {name}={shlex.quote(value)}")
            self._environment[name] = value

    def run(self, command: str, *, expect: int = 0) -> str:
        """Show a command and run it; return its stdout. Raises DemoFailed for another exit code."""
        self._show(command)
        finished = subprocess.run(
            shlex.split(command),
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self._seconds_left(),
            check=False,
        )
        print(finished.stderr + finished.stdout, end="", flush=True)
        if finished.returncode != expect:
            raise DemoFailed(f"{command}: exit code {finished.returncode}, not {expect}")
        return finished.stdout

    def start(self, name: str, command: str) -> None:
        """Show a command and run it in the background; its output goes to a file."""
        self._show(f"{command} &")
        self._holds_signals = True
        with self._output(name).open("wb") as output:
            process = subprocess.Popen(
                shlex.split(command),
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C must reach the demo only: it stops the processes in the right order.
                start_new_session=True,
            )
        self._background.append((name, process))
        self._holds_signals = False
        if self._ended_by is not None:
            raise Ended(self._ended_by)

    def end(self, name: str) -> None:
        """Stop the process of that name with SIGTERM, and wait until it has ended."""
        index = [started for started, _ in self._background].index(name)
        _, process = self._background.pop(index)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds. Raises DemoFailed if a background process ends first."""
        print(f"{self._dim}# ... {what}{self._plain}", flush=True)
        while not condition():
            for name, process in self._background:
                if process.poll() is not None:
                    raise DemoFailed(f"{name} has ended:\n{self.said(name)}")
            self._seconds_left()
            time.sleep(0.1)

    def quietly(self, *command: str) -> str:
        """Run a command without showing it; return its stdout."""
        finished = subprocess.run(
            command,
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self._seconds_left(),
            check=False,
        )
        return finished.stdout

    def said(self, name: str) -> str:
        """Return the output of `name` so far."""
        return self._output(name).read_text(errors="replace")

    def _on_signal(self, signal_number: int, frame: object) -> None:
        self._ended_by = signal_number
        if not self._holds_signals:
            raise Ended(signal_number)

    def _output(self, name: str) -> Path:
        return self._directory / f"{name}.out"

    def _show(self, command: str) -> None:
        print(f"\n{self._bold}$ {command}{self._plain}", flush=True)

    def _seconds_left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise DemoFailed(f"not done after {DEADLINE_SECONDS} s")
        return left


def free_port() -> int:
    """Return a free port on loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    # The user's own settings must not reach the demo's server.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TASKLOGS_")}
    path = f"{ROOT / '.venv/bin'}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT)}


def _styles() -> tuple[str, str, str]:
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return "\x1b[1m", "\x1b[2m", "\x1b[0m"
    return "", "", ""
