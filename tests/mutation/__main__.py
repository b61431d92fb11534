"""Breaks a copy of the code in every way of the table. Each time the named test must fail.

    python -m tests.mutation [RULE ...]

Exit code 0: all tests pass without a break, and each break makes its test fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.mutation.breaks import BREAKS, Break
from tests.support.fixtures import reaper

_ROOT = Path(__file__).parents[2]
_COPIED = ("server", "clients/python", "tests", "pyproject.toml")
_TEST_SECONDS = 600
_PASSED, _FAILED = 0, 1


def main(rules: list[str]) -> int:
    chosen = [one for one in BREAKS if not rules or one.rule in rules]
    with tempfile.TemporaryDirectory(prefix="tasklogs-rules-") as directory:
        copy = Path(directory)
        _copy(copy)
        print(f"without a break: the tests of {len(chosen)} breaks", flush=True)
        if _exit_code(copy, *sorted({one.test for one in chosen})) != _PASSED:
            print("the tests do not pass on unbroken code")
            return 1
        unseen = [one for one in chosen if not _is_seen(copy, one)]
    print(f"{len(chosen) - len(unseen)} of {len(chosen)} breaks made their test fail")
    return 1 if unseen else 0


def _copy(to: Path) -> None:
    for name in _COPIED:
        source, target = _ROOT / name, to / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def _is_seen(copy: Path, broken: Break) -> bool:
    path = copy / broken.path
    whole = path.read_text()
    path.write_text(whole.replace(broken.line, broken.instead))
    try:
        code = _exit_code(copy, broken.test)
    finally:
        path.write_text(whole)
    # Any other code means that the test could not run, which shows nothing.
    verdict = {_FAILED: "fails", _PASSED: "PASSES"}.get(code, f"DOES NOT RUN ({code})")
    print(f"{broken.rule}  {broken.what}: {broken.test} {verdict}", flush=True)
    return code == _FAILED


def _exit_code(copy: Path, *tests: str) -> int:
    # Before the installed project, which is the checkout.
    path = os.pathsep.join(str(copy / source) for source in ("server", "clients/python"))
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_TEST_SECONDS,
        check=False,
    )
    return finished.returncode


if __name__ == "__main__":
    reaper.start()
    sys.exit(main(sys.argv[1:]))
