"""The runs that were recorded: one JSON file per day, see bench/table.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Rows that had no name of their own in the first recorded run, by name and occurrence.
_ANSWER = "an answer that grows to {} KB in 1 KB steps: {}"
_LATE = "change in the task app to the follower, 100 tasks at {}: 99th percentile"
_RENAMED = {
    ("the same on one task, against a constant", 0): (
        "snapshot read, 30 entries, 64 KB, 32 callers on one task, against a constant"
    ),
    ("the same: WAL, prose", 0): _ANSWER.format(100, "WAL, prose"),
    ("the same: WAL, noise", 0): _ANSWER.format(100, "WAL, noise"),
    ("the same: 99th percentile", 0): _LATE.format("10 changes/s"),
    ("the same: 99th percentile", 1): _LATE.format("40 changes/s (redraws)"),
    ("the same without deltas", 0): _ANSWER.format(100, "bytes on the follow without deltas"),
    ("the same without deltas", 1): _ANSWER.format(1000, "bytes on the follow without deltas"),
    ("the same over 20 connections", 0): (
        "server memory per idle follower (500 of 500 tasks, over 20 connections)"
    ),
}


@dataclass(frozen=True)
class Row:
    """One row of one run. `figure` is the ratio, or our figure where there is none."""

    figure: float
    least: float
    most: float
    unit: str
    target: float | None
    at_most: bool


@dataclass(frozen=True)
class Run:
    """One recorded run: its date, and its rows by name."""

    day: str
    rows: Mapping[str, Row]


def runs(directory: Path) -> list[Run]:
    """Return the recorded runs, the oldest first."""
    return [
        Run(path.stem, _rows(json.loads(path.read_text())["results"]))
        for path in sorted(directory.glob("*.json"))
    ]


def _rows(results: list[dict[str, Any]]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    seen: dict[str, int] = {}
    for result in results:
        what = result["what"]
        occurrence = seen[what] = seen.get(what, -1) + 1
        rows[_RENAMED.get((what, occurrence), what)] = _row(result)
    return rows


def _row(result: dict[str, Any]) -> Row:
    has_ratio = result["ratio"] is not None
    figure = result["ratio"] if has_ratio else result["ours"]
    return Row(
        figure=figure,
        least=min(result["ratios"], default=figure),
        most=max(result["ratios"], default=figure),
        unit="ratio" if has_ratio else result["unit"],
        target=result["target"],
        at_most=result["at_most"],
    )
