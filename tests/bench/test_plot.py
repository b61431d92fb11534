from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from bench import plot
from bench.recorded import runs

ROOT = Path(__file__).parents[2]


def _result(what: str, **fields: Any) -> dict[str, Any]:
    usual = {"unit": "ms", "ours": 2.0, "ratio": None, "ratios": [1.0, 4.0], "target": 3.0}
    return {"what": what, "at_most": True, **usual, **fields}


def _record(directory: Path, day: str, *results: dict[str, Any]) -> None:
    (directory / f"{day}.json").write_text(json.dumps({"results": results}))


def _texts(plotted: Path) -> list[str | None]:
    return [one.text for one in ET.parse(plotted).iter() if one.tag.endswith("}text")]


def test_the_plot_has_every_row_of_the_newest_run_and_its_earlier_figures(tmp_path: Path) -> None:
    _record(tmp_path, "2026-11-22", _result("a read"), _result("gone"))
    _record(tmp_path, "2026-12-01", _result("a read", ours=2.5), _result("new"))

    texts = _texts(plot.draw(tmp_path))
    assert texts.count("a read") == texts.count("new") == 1
    assert "gone" not in texts
    assert texts.count("2026-11-22") == texts.count("2026-12-01") == 2  # on each of two panels


def test_the_same_runs_give_the_same_file(tmp_path: Path) -> None:
    _record(tmp_path, "2026-11-22", _result("a read"))
    first = plot.draw(tmp_path).read_bytes()
    assert plot.draw(tmp_path).read_bytes() == first


def test_the_recorded_plot_is_that_of_the_recorded_runs(tmp_path: Path) -> None:
    results = ROOT / "bench/results"
    for path in results.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    # Only the texts: another platform may round a coordinate differently.
    assert _texts(plot.draw(tmp_path)) == _texts(results / "latest.svg")


def test_rows_of_the_first_run_have_the_names_of_today() -> None:
    (first, *_) = runs(ROOT / "bench/results")
    assert not [name for name in first.rows if name.startswith("the same")]
    late = "change in the task app to the follower, 100 tasks at 40 changes/s (redraws)"
    assert first.rows[f"{late}: median"].figure < first.rows[f"{late}: 99th percentile"].figure
