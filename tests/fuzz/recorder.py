"""Runs a target and keeps its findings, so that a run continues after the first finding."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.target import Target

_MOST_FINDINGS = 20
_SHORTENING_SECONDS = 5.0
_FIGURES_EVERY_SECONDS = 1.0


class Recorder:
    """Gives inputs to `target`. Writes `findings/`, `figures.json` and `slowest` to `directory`.

    If several findings were raised at the same place, it keeps only the first one, shortened.
    """

    def __init__(self, target: Target, directory: Path) -> None:
        self._target = target
        self._directory = directory
        self._findings = directory / "findings"
        self._findings.mkdir(parents=True, exist_ok=True)
        self._locations: set[str] = set()
        self._inputs = 0
        self._slowest_seconds = 0.0
        self._began = self._written = time.monotonic()

    def __call__(self, data: bytes) -> None:
        """Run one input."""
        self._inputs += 1
        began = time.monotonic()
        error: Exception | None = None
        try:
            self._target.run(data)
        except Exception as raised:
            error = raised
        now = time.monotonic()
        if now - began > self._slowest_seconds and self._inputs > 1:  # the first input warms up
            self._slowest_seconds = now - began
            (self._directory / "slowest").write_bytes(data)
        if error is not None:
            self._keep(data, error)
        if now - self._written > _FIGURES_EVERY_SECONDS:
            self.write_figures()

    def write_figures(self) -> None:
        """Tell the parent process how far the run is: no engine says when it ends."""
        self._written = time.monotonic()
        figures = {
            "inputs": self._inputs,
            "seconds": self._written - self._began,
            "slowest_seconds": self._slowest_seconds,
        }
        draft = self._directory / "figures.draft"
        draft.write_text(json.dumps(figures))
        draft.replace(self._directory / "figures.json")

    def _keep(self, data: bytes, error: Exception) -> None:
        location = _location_of(error)
        if location in self._locations or len(self._locations) >= _MOST_FINDINGS:
            return
        self._locations.add(location)
        told = "".join(traceback.format_exception(error))
        short = shortened(data, lambda shorter: self._raised_at(shorter) == location)
        path = self._findings / hashlib.sha256(short).hexdigest()[:16]
        path.write_bytes(short)
        path.with_suffix(".txt").write_text(f"{short!r}\n\n{told}", errors="backslashreplace")

    def _raised_at(self, data: bytes) -> str | None:
        try:
            self._target.run(data)
        except Exception as error:
            return _location_of(error)
        return None


def shortened(data: bytes, still: Callable[[bytes], bool]) -> bytes:
    """Remove pieces of `data` for as long as `still` is true for the rest. Return the rest."""
    deadline = time.monotonic() + _SHORTENING_SECONDS
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if time.monotonic() > deadline:
                return data
            if still(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


def _location_of(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)[1:]  # without this file's frame
    # A line of a shared check counts as a new finding for each line of code that it checks.
    return " ".join(
        [type(error).__name__, *(f"{one.filename}:{one.lineno}" for one in frames[-3:])]
    )
