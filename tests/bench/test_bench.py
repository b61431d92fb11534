from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from bench.result import compared
from bench.rounds import Comparison, Contestant, interleave
from bench.table import markdown

ROOT = Path(__file__).parents[2]


async def test_each_round_runs_every_contestant_once_in_alternating_order() -> None:
    order: list[str] = []

    async def run(name: str) -> float:
        order.append(name)
        return 1.0

    rounds = await interleave({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=2)

    assert [order[n : n + 2] for n in (0, 2, 4)] == [["b", "a"], ["a", "b"], ["b", "a"]]
    assert rounds.figures == {"a": [1.0, 1.0], "b": [1.0, 1.0]}  # the first round warmed up


async def test_a_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    ours, bare = iter([9.0, 1.0, 20.0, 3.0]), iter([1.0, 2.0, 40.0, 3.0])

    async def of_ours() -> float:
        return next(ours)

    async def of_bare() -> float:
        return next(bare)

    rounds = await interleave({"ours": of_ours, "bare": of_bare}, rounds=3)
    assert rounds.compare("ours", "bare") == Comparison(3.0, 3.0, 0.5, [0.5, 0.5, 1.0])


async def test_per_cpu_is_the_work_per_second_of_cpu_time() -> None:
    used_seconds = 0.0

    def running(figure: float, cost_seconds: float) -> Contestant:
        async def run() -> float:
            nonlocal used_seconds
            used_seconds += cost_seconds
            await asyncio.sleep(0.05)
            return figure

        return run

    rounds = await interleave(
        {"ours": running(10.0, 4.0), "bare": running(20.0, 1.0)}, 3, lambda: used_seconds
    )
    # Half as much in the same time, for four times the CPU time.
    assert rounds.compare("ours", "bare").per_cpu == pytest.approx(0.125, rel=0.2)


@pytest.mark.parametrize(
    ("ratio", "at_most", "met"),
    [(0.94, False, "NO"), (0.95, False, "yes"), (0.95, True, "yes"), (0.96, True, "NO")],
)
def test_the_table_says_whether_a_target_is_met(ratio: float, at_most: bool, met: str) -> None:
    comparison = Comparison(ours=ratio, bare=1, ratio=ratio, ratios=[ratio])
    result = compared(
        "a read", comparison, unit="calls/s", target=0.95, prototype="1.02", at_most=at_most
    )
    line = markdown([result], "about").splitlines()[-2]
    assert line.split("|")[1].strip() == "a read"
    assert line.split("|")[-2].strip() == met


@pytest.mark.timeout(60)
def test_a_quick_run_of_one_measurement_prints_its_row_and_writes_nothing() -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in (ROOT / "bench/results").iterdir())
    run = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--only", "snapshot-one"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert run.returncode == 0, run.stderr
    assert "| the same on one task, against a constant" in run.stdout
    after = sorted((path, path.stat().st_mtime_ns) for path in (ROOT / "bench/results").iterdir())
    assert after == before


def test_a_directory_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--only", "help", "--checkout", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert f"no checkout: {tmp_path}/server is missing" in run.stderr
