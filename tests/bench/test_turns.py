from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.cpu import CpuCost
from bench.result import Result
from bench.run import Failure, Measurement, Outcome
from bench.stage import Stage
from bench.turns import in_turns


async def _read(stage: Stage) -> list[Result]:
    raise NotImplementedError


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for package in ("server", "clients/python"):
        (tmp_path / package).mkdir(parents=True)
    return tmp_path


async def test_two_builds_are_measured_in_turns_and_compared(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "before")
    ran: list[str] = []
    figures = {"this": iter([30.0, 40.0, 60.0]), "beside": iter([10.0, 20.0, 20.0])}

    async def run(measurements: Mapping[str, Measurement]) -> Outcome:
        assert list(measurements) == ["read"]
        path = os.environ["PYTHONPATH"]
        expected = f"{checkout}/server:{checkout}/clients/python"
        build = {"before": "this", expected: "beside"}[path]
        ran.append(build)
        cost = CpuCost(300, 40) if build == "this" else CpuCost(900, 80)
        return Outcome([Result("a read", next(figures[build]), "calls/s", cpu=cost)])

    turns = await in_turns({"read": _read}, checkout, run, turns=3)

    assert ran == ["beside", "this", "this", "beside", "beside", "this"]
    (line,) = [one for one in turns.markdown("about").splitlines() if one.startswith("| a read")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:5] == ["40 calls/s", "20 calls/s", "3.00", "2.00 to 3.00"]
    assert cells[5:] == ["300 + 40 us", "900 + 80 us"]


async def test_a_turn_that_fails_names_its_build(checkout: Path) -> None:
    async def run(measurements: Mapping[str, Measurement]) -> Outcome:
        if str(checkout) in os.environ.get("PYTHONPATH", ""):
            return Outcome(failures={"read": Failure("no such call", "...")})
        return Outcome([Result("a read", 1.0, "s")])

    turns = await in_turns({"read": _read}, checkout, run, turns=1)

    assert list(turns.failures) == ["read (beside, turn 1)"]
    assert "| a read" not in turns.markdown("about")
    assert "- FAILED: read (beside, turn 1): no such call" in turns.markdown("about")
