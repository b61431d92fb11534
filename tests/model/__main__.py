"""Explores the models with spin, then each model without each of its guards.

    python -m tests.model [MODEL ...]

Exit code 0: no whole model breaks a rule, and each removed guard breaks its rule. Where spin or a
C compiler is missing, it says so and exits with 0.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.model.guards import GUARDS, MODELS, Guard, Model

_HERE = Path(__file__).parent
_MEMORY_MIB = 2000
# Deeper than any run of the models: spin says so if it is not.
_DEPTH = 1_000_000
_SECONDS = 300
# Each may take 1.3 GB.
_AT_ONCE = 2
_INCOMPLETE = ("max search depth too small", "out of memory", "hash-table full", "Search not")


@dataclass(frozen=True)
class Explored:
    """What spin found: the rule that was broken, if any, and how many states it has visited."""

    rule: str | None
    states: int
    seconds: float
    report: str


def main(names: list[str]) -> int:
    missing = [one for one in ("spin", "cc") if shutil.which(one) is None]
    if missing:
        print(f"model: left out, because of missing programs: {', '.join(missing)}")
        return 0
    models = [one for one in MODELS if not names or one.name in names]
    runs = [
        run
        for model in models
        for run in (
            *(partial(_whole_holds, model, size) for size in model.sizes),
            *(partial(_guard_matters, model, one) for one in GUARDS if one.model == model.name),
        )
    ]
    with ThreadPoolExecutor(_AT_ONCE) as executor:
        wrong = sum(not is_as_expected for is_as_expected in executor.map(lambda run: run(), runs))
    print(
        f"model: {wrong} of the runs differ from what is expected" if wrong else "model: all well"
    )
    return 1 if wrong else 0


def _whole_holds(model: Model, size: Mapping[str, int]) -> bool:
    found = explore(model.name, size)
    verdict = "no rule is broken" if found.rule is None else f"BREAKS {found.rule}"
    _print(model.name, _text(size), verdict, found)
    if found.rule is not None:
        print(found.report)
    return found.rule is None


def _guard_matters(model: Model, guard: Guard) -> bool:
    # Most end after a few states: to compile takes longer. Those with a size of their own do not.
    optimized = "-O1" if guard.size else "-O0"
    found = explore(model.name, {**model.sizes[0], **guard.size, guard.macro: 0}, optimized)
    is_as_expected = found.rule == guard.rule
    verdict = f"breaks {found.rule}" if found.rule else "breaks nothing"
    if not is_as_expected:
        verdict = f"{verdict}, NOT {guard.rule or 'backed up'}"
    _print(model.name, f"without {guard.macro}", verdict, found)
    return is_as_expected


def explore(name: str, macros: Mapping[str, int], optimized: str = "-O1") -> Explored:
    """Explore a model exhaustively, or up to the first broken rule.

    Raises RuntimeError if spin could not explore all of it.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tasklogs-model-") as directory:
        for source in (*_HERE.glob("*.pml"), *_HERE.glob("*.h")):
            shutil.copy(source, directory)
        defined = [f"-D{macro}={value}" for macro, value in macros.items()]
        _run(directory, "spin", "-a", *defined, f"{name}.pml")
        options = ("-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={_MEMORY_MIB}")
        _run(directory, "cc", optimized, *options, "-o", "pan", "pan.c")
        report = _run(directory, "./pan", f"-m{_DEPTH}")
    return Explored(
        _broken_rule(report),
        int(re.findall(r"(\d+) states, stored", report)[-1]),
        time.monotonic() - began,
        report,
    )


def _broken_rule(report: str) -> str | None:
    for incomplete in _INCOMPLETE:
        if incomplete in report and "assertion violated" not in report:
            raise RuntimeError(f"spin did not explore everything: {incomplete}")
    broken = re.search(r"assertion violated \(*(\w+)", report)
    if broken is not None:
        return broken[1]
    return None if "errors: 0" in report else "an end of the model"


def _run(directory: str, *command: str) -> str:
    finished = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    output = finished.stdout + finished.stderr
    if finished.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{output}")
    return output


def _text(size: Mapping[str, int]) -> str:
    return " ".join(f"{macro}={value}" for macro, value in size.items())


def _print(name: str, what: str, verdict: str, found: Explored) -> None:
    effort = f"{found.states:,} states, {found.seconds:.1f} s"
    print(f"{name}  {what}: {verdict} ({effort})", flush=True)


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main(sys.argv[1:]))
