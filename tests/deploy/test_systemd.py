"""The systemd unit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tasklogs_server.settings import ServerSettings
from tests.cli.command import TASKLOGS
from tests.deploy.known import DEPLOY, help_of, variables_in, variables_of

UNIT = DEPLOY / "systemd/tasklogs.service"
COMMAND = "/opt/tasklogs/bin/tasklogs"


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^([A-Z]\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_its_command_and_its_variables_exist() -> None:
    [command] = settings()["ExecStart"]
    assert command == f"{COMMAND} serve"
    assert "Usage" in help_of("serve")
    named = variables_in(UNIT.read_text() + (DEPLOY / "systemd/server.env").read_text())
    assert named <= variables_of("serve")


def test_it_waits_for_the_drain_and_signals_only_the_server() -> None:
    [stop], [kill] = settings()["TimeoutStopSec"], settings()["KillMode"]
    drain = ServerSettings.model_fields["drain_timeout"].default.total_seconds()

    assert float(stop) > drain + 10
    assert kill == "mixed"


def test_only_its_user_can_read_its_data() -> None:
    [state], [mode] = settings()["StateDirectory"], settings()["StateDirectoryMode"]

    assert f"TASKLOGS_DATA_DIR=/var/lib/{state}" in settings()["Environment"]
    assert mode == "0700"


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
def test_systemd_accepts_it_and_rates_it_as_hardened(tmp_path: Path) -> None:
    unit = tmp_path / "tasklogs.service"
    # systemd requires that the command exists.
    unit.write_text(UNIT.read_text().replace(COMMAND, str(TASKLOGS)))
    verified = analyze("verify", "--man=no", str(unit))
    assert "tasklogs.service" not in verified.stderr, verified.stderr
    rated = analyze("security", "--offline=yes", "--no-pager", str(unit))
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", rated.stdout)
    assert score is not None, rated.stdout + rated.stderr
    assert float(score.group(1)) < 2.5


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "SYSTEMD_COLORS": "0"},
    )
