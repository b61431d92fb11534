"""The variables and options of the programs, taken from the programs themselves."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tasklogs_server.settings import ServerSettings
from tests.cli.command import TASKLOGS, environment

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
_VARIABLE = re.compile(r"\bTASKLOGS_[A-Z_]+\b")


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the YAML documents of a file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def help_of(command: str) -> str:
    """Return the output of `tasklogs COMMAND --help`."""
    shown = subprocess.run(
        [str(TASKLOGS), command, "--help"],
        env=environment({"NO_COLOR": "1", "COLUMNS": "300"}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return shown.stdout


def variables_of(command: str) -> set[str]:
    """Return the variables that a command reads."""
    named = set(_VARIABLE.findall(help_of(command)))
    if command == "serve":
        named |= {f"TASKLOGS_{name.upper()}" for name in ServerSettings.model_fields}
    return named


def variables_in(text: str) -> set[str]:
    """Return the variables that a file names."""
    return set(_VARIABLE.findall(text))
