"""Without the extra `telemetry` all else works, and an error says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tasklogs.extras import how_to_install

# Makes these modules unavailable in the process that begins with this.
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("grpc_channelz", "opentelemetry", "prometheus_client"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
OPEN = """
from tasklogs_server.telemetry.assembly import TelemetryUnavailable, Wanted, opened
try:
    with opened(Wanted({listen!r}, {calls!r}, "json", {traces!r})) as telemetry:
        print("on" if telemetry.is_on else "off")
except TelemetryUnavailable as error:
    print(error)
"""


def said(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_neither_server_nor_agent_imports_any_of_it() -> None:
    program = "import tasklogs_server.app, tasklogs.agent.program, tasklogs.cli.main; print('fine')"

    assert said(WITHOUT + program) == "fine"


@pytest.mark.parametrize(
    ("listen", "calls", "traces", "expected"),
    [
        (None, "none", False, "off"),
        (None, "all", False, "on"),
        ("0", "none", False, "prometheus_client"),
        (None, "none", True, "opentelemetry"),
    ],
)
def test_the_error_of_a_missing_library_says_what_to_install(
    listen: str | None, calls: str, traces: bool, expected: str
) -> None:
    told = said(WITHOUT + OPEN.format(listen=listen, calls=calls, traces=traces))

    if expected in ("on", "off"):
        assert told == expected
    else:
        assert expected in told
        assert how_to_install("telemetry") in told
