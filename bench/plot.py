"""Draws `latest.svg`: every row of the newest run over all recorded runs, with its target.

`python -m bench.plot` draws it again without measuring.

The same runs give the same file, byte for byte: the ids in it come from a fixed salt, and it has no
date. Its text stays text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.recorded import Row, Run, runs
from bench.table import RESULTS

_COLUMNS = 4
_PANEL_INCHES = (4.2, 2.1)
_TITLE_CHARACTERS = 52
_MET, _MISSED, _NEUTRAL = "#1a7f37", "#cf222e", "#57606a"


def draw(directory: Path = RESULTS) -> Path:
    """Draw the runs that `directory` has, as `latest.svg` in it. Return the path of the plot."""
    path = directory / "latest.svg"
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not what this machine prefers
        matplotlib.rc("svg", hashsalt="tasklogs", fonttype="none")
        matplotlib.rc("font", size=8)
        _figure(runs(directory)).savefig(path, format="svg", metadata={"Date": None})
    # Matplotlib ends some lines with a space, which checks of a commit complain of.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path


def _figure(recorded: Sequence[Run]) -> Figure:
    names = list(recorded[-1].rows)
    lines = -(-len(names) // _COLUMNS)
    figure = Figure(
        figsize=(_COLUMNS * _PANEL_INCHES[0], lines * _PANEL_INCHES[1]), layout="constrained"
    )
    panels = figure.subplots(lines, _COLUMNS, squeeze=False).flat
    for axes, name in zip(panels, names, strict=False):
        _panel(axes, name, recorded)
    for axes in list(panels)[len(names) :]:
        axes.set_axis_off()
    return figure


def _panel(axes: Axes, name: str, recorded: Sequence[Run]) -> None:
    """Draw one row: its figure and spread in each run that has it, and its newest target."""
    newest = recorded[-1].rows[name]
    points = [
        (number, row)
        for number, run in enumerate(recorded)
        if (row := run.rows.get(name)) is not None and row.unit == newest.unit
    ]
    places = [number for number, _ in points]
    figures = [row.figure for _, row in points]
    axes.vlines(
        places,
        [row.least for _, row in points],
        [row.most for _, row in points],
        colors="#afb8c1",
        linewidth=3,
    )
    axes.plot(places, figures, "-o", color=_colour(newest), markersize=4, linewidth=1)
    axes.annotate(
        f"{newest.figure:.3g}", (places[-1], figures[-1]), xytext=(5, 2), textcoords="offset points"
    )
    if newest.target is not None:
        axes.axhline(newest.target, color=_NEUTRAL, linestyle="--", linewidth=0.8)
    axes.set_title("\n".join(textwrap.wrap(name, _TITLE_CHARACTERS)), fontsize=7.5, loc="left")
    axes.set_ylabel(newest.unit)
    highest = max(row.most for _, row in points)
    axes.set_ylim(0, 1.15 * max(highest, newest.target or 0))
    axes.set_xlim(-0.5, len(recorded) - 0.5)
    axes.set_xticks(range(len(recorded)), [run.day for run in recorded])
    axes.spines[["top", "right"]].set_visible(False)


def _colour(row: Row) -> str:
    if row.target is None:
        return _NEUTRAL
    is_met = row.figure <= row.target if row.at_most else row.figure >= row.target
    return _MET if is_met else _MISSED


if __name__ == "__main__":
    print(draw())
