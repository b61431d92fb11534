"""The commands in the README are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.command import run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL))
# The agent would wait for its server indefinitely; the demo runs it.
COMMANDS = sorted(set(re.findall(r"^tasklogs (?!agent)[^#&\n]+", SHELL, flags=re.MULTILINE)))


def test_the_readme_has_commands_to_try() -> None:
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
async def test_each_command_gets_as_far_as_the_missing_server(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    finished = await run(*shlex.split(command)[1:], env={"TASKLOGS_SERVER": "127.0.0.1:1"})

    assert finished.code == 1
    assert "no server answers at 127.0.0.1:1" in finished.stderr


def test_each_make_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))

    assert set(re.findall(r"`?make ([a-z-]+)", SHELL)) <= targets


def test_each_link_inside_the_project_leads_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "docs/README.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
