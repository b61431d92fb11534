"""Runs a target and keeps what it finds, so that a run goes on past its first finding."""

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
    """Gives inputs to `target`. In `directory`: `findings/`, `figures.json`, and `slowest`.

    Of findings that were raised in the same place only the first one is kept, shortened.
    """

    def __init__(self, target: Target, directory: Path) -> None:
        self._target = target
        self._directory = directory
        self._findings = directory / "findings"
        self._findings.mkdir(parents=True, exist_ok=True)
        self._places: set[str] = set()
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
        if now - began > self._slowest_seconds and self._inputs > 1:  # the first one warms up
            self._slowest_seconds = now - began
            (self._directory / "slowest").write_bytes(data)
        if error is not None:
            self._keep(data, error)
        if now - self._written > _FIGURES_EVERY_SECONDS:
            self.write_figures()

    def write_figures(self) -> None:
        """Let the parent know how far this run is: no engine says when it ends."""
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
        place = _place_of(error)
        if place in self._places or len(self._places) >= _MOST_FINDINGS:
            return
        self._places.add(place)
        told = "".join(traceback.format_exception(error))
        short = shortened(data, lambda shorter: self._raised_at(shorter) == place)
        path = self._findings / hashlib.sha256(short).hexdigest()[:16]
        path.write_bytes(short)
        path.with_suffix(".txt").write_text(f"{short!r}\n\n{told}", errors="backslashreplace")

    def _raised_at(self, data: bytes) -> str | None:
        try:
            self._target.run(data)
        except Exception as error:
            return _place_of(error)
        return None


def shortened(data: bytes, still: Callable[[bytes], bool]) -> bytes:
    """Return what is left of `data` when pieces are taken out for as long as `still` holds."""
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


def _place_of(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)[1:]  # without our own
    # The same line of a check is another finding for another line of the code that is checked.
    return " ".join(
        [type(error).__name__, *(f"{one.filename}:{one.lineno}" for one in frames[-3:])]
    )
