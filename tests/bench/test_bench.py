from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from bench.cpu import CpuCost, CpuSeconds, used
from bench.result import compared
from bench.rounds import Comparison, Contestant, Figure, Rounds, Slice, interleave
from bench.run import Outcome
from bench.table import markdown
from tests.support.fixtures.conditions import until

ROOT = Path(__file__).parents[2]


async def test_each_round_runs_every_contestant_once_in_each_order_equally_often() -> None:
    ran: list[str] = []

    async def run(name: str) -> float:
        ran.append(name)
        return 1.0

    contestants = {name: functools.partial(run, name) for name in "abc"}
    rounds = await interleave(contestants, rounds=12)

    assert ran[:3] == ["a", "b", "c"]  # the first round warmed up
    orders = Counter("".join(ran[n : n + 3]) for n in range(3, len(ran), 3))
    assert orders == dict.fromkeys(("abc", "acb", "bac", "bca", "cab", "cba"), 2)
    assert {name: rounds.rates(name) for name in "abc"} == dict.fromkeys("abc", [1.0] * 12)


async def test_a_warm_up_precedes_each_slice_and_costs_it_nothing() -> None:
    did: list[str] = []
    used_seconds = 0.0

    async def do(what: str) -> float:
        nonlocal used_seconds
        did.append(what)
        used_seconds += {"warm": 100.0, "run": 1.0}[what]
        return 1.0

    contestant = Contestant(run=lambda: do("run"), warm_up=lambda: do("warm"))
    rounds = await interleave({"a": contestant}, 2, lambda _: CpuSeconds(used_seconds))

    assert did == ["run", "warm", "run", "warm", "run"]
    assert [figure.cpu.everything for figure in rounds.figures["a"]] == [1.0, 1.0]


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

    def running(figure: float, cost_seconds: float) -> Slice:
        async def run() -> float:
            nonlocal used_seconds
            used_seconds += cost_seconds
            await asyncio.sleep(0.05)
            return figure

        return run

    rounds = await interleave(
        {"ours": running(10.0, 4.0), "bare": running(20.0, 1.0)},
        3,
        lambda server: CpuSeconds(used_seconds),
    )
    # Half as much in the same time, for four times the CPU time.
    assert rounds.compare("ours", "bare").per_cpu == pytest.approx(0.125, rel=0.2)


def test_a_call_costs_what_its_server_and_postgres_used_for_it() -> None:
    figures = [
        Figure(100.0, 2.0, CpuSeconds(everything=1.0, server=0.1, postgres=0.02)),
        Figure(50.0, 4.0, CpuSeconds(everything=1.0, server=0.3, postgres=0.02)),
    ]
    rounds = Rounds({"ours": figures, "bare": [Figure(1.0), Figure(1.0)]})
    comparison = rounds.compare("ours", "bare")
    assert comparison.cpu == CpuCost(server_us=1000.0, postgres_us=100.0)  # 400 calls
    assert comparison.bare_cpu is None
    of_megabytes = compared("a log", comparison, unit="bytes/s")
    assert of_megabytes.cpu == CpuCost(server_us=1e9, postgres_us=1e8)


def test_times_compare_the_other_way_round() -> None:
    rounds = Rounds({"long": [Figure(100.0)], "short": [Figure(200.0)]})
    comparison = rounds.compare_times("long", "short", per_second=1000)
    assert (comparison.ours, comparison.bare, comparison.ratio) == (10.0, 5.0, 2.0)


async def test_the_cpu_time_of_children_that_have_ended_counts() -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}]); input()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", nested), stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        parent = psutil.Process(process.pid)
        await until(lambda: _used_by_ended_children(parent) >= 0.25)
        seconds = used(parent, postgres_pid=process.pid)
        assert min(seconds.everything, seconds.server, seconds.postgres) >= 0.25
    finally:
        process.stdin.close()
        await process.wait()


def _used_by_ended_children(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.children_user + times.children_system)


@pytest.mark.parametrize(
    ("ratio", "at_most", "met"),
    [(0.94, False, "NO"), (0.95, False, "yes"), (0.95, True, "yes"), (0.96, True, "NO")],
)
def test_the_table_says_whether_a_target_is_met(ratio: float, at_most: bool, met: str) -> None:
    comparison = Comparison(ours=ratio, bare=1, ratio=ratio, ratios=[ratio])
    result = compared(
        "a read", comparison, unit="calls/s", target=0.95, shown="1.02", at_most=at_most
    )
    line = markdown(Outcome([result]), "about").splitlines()[-2]
    assert line.split("|")[1].strip() == "a read"
    assert line.split("|")[-2].strip() == met


@pytest.mark.timeout(240)
def test_a_quick_run_of_one_measurement_prints_its_row_and_writes_nothing() -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in (ROOT / "bench/results").iterdir())
    run = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--only", "snapshot-one"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr
    assert "32 callers on one task, against a constant" in run.stdout
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
