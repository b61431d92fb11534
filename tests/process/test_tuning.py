"""How many connections a limit of open files allows. A limit stays, so each case has a process."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tasklogs_server.process.tuning import connections_within_open_files

_SCRIPT = """
import resource, sys
from tasklogs_server.process.tuning import connections_within_open_files
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
allowed = connections_within_open_files(wanted)
print("allowed", allowed, "soft", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed", "soft_then"),
    [
        (900, 900, 600, 600, 900),
        (300, 900, 600, 600, 856),
        (300, 700, 600, 444, 700),
        (300, 400, 600, 200, 400),
    ],
    ids=["enough", "raised", "as far as allowed", "half if there are few"],
)
def test_the_soft_limit_is_raised_as_far_as_allowed(
    soft: int, hard: int, wanted: int, allowed: int, soft_then: int
) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(soft), str(hard), str(wanted)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert f"allowed {allowed} soft {soft_then}\n" in done.stdout
    assert ("connections.reduced" in done.stdout) is (allowed < wanted)


def test_the_current_limit_is_used_if_it_cannot_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))

    assert connections_within_open_files(10_000) == 768
