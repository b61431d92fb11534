"""`python -m tests.system.soak`: see tests/system/soak/options.py."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.support.fixtures import reaper
from tests.system.soak.ledger import Ledger, read_again
from tests.system.soak.options import Options, parse
from tests.system.soak.real_task_app import executable
from tests.system.soak.report import lines
from tests.system.soak.run import soak
from tests.system.soak.verdict import judge


def tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def main(options: Options) -> int:
    if options.real_agentapi and executable() is None:
        tell("skipped: no AgentAPI in .tools/bin or TASKLOGS_AGENTAPI; `make agentapi` says why")
        return 0
    if options.judge is not None:
        return 0 if _judged(read_again(options.judge)) else 1
    directory = options.keep or Path(tempfile.mkdtemp(prefix="soak-"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        ledger = asyncio.run(soak(options, directory, tell))
    except ValueError as error:
        tell(str(error))
        return 2
    is_good = _judged(ledger)
    if is_good and options.keep is None:
        shutil.rmtree(directory)
    else:
        tell(f"all records are in {directory}")
    return 0 if is_good else 1


def _judged(ledger: Ledger) -> bool:
    """Print the verdict. Returns whether it is good."""
    began = time.monotonic()
    verdict = judge(ledger)
    tell(f"verdict after {time.monotonic() - began:.1f} s")
    for line in lines(verdict):
        tell(line)
    return verdict.is_good


if __name__ == "__main__":
    reaper.start()
    sys.exit(main(parse(sys.argv[1:])))
