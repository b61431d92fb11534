"""What a command repeats of its arguments: it is shown, and steers and hides nothing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tasklogs.cli import main
from tests.cli.command import run_on_terminal

HOSTILE = "ev\u200bil\x1b]0;owned\x07\x9b2J\u202egnp\U000e0041\ufe0f\u2800/x" + "\u0301" * 40
_HIDING = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800"
    r"\ud800-\udfff\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]|\u0301{7}"
)
BENIGN = {
    "file": ["log.jsonl"],
    "task": ["local/demo"],
    "name": ["demo"],
    "build_number": ["--build-number", "1"],
    "transition": ["--transition", "start"],
    "job_status": ["--job-status", "running"],
}
"""How to give each parameter that a command requires."""
# These would run: an error comes after their parameters were read.
FAILS_LATER = {"serve": {"TASKLOGS_PAGE_BYTES": "many"}, "agent": {"TASKLOGS_AGENT_TOKEN": "x y"}}


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path of each command, and the command."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path, command


COMMANDS = dict(leaves(typer.main.get_command(main.app)))
GIVEN = [
    (path, parameter)
    for path, command in COMMANDS.items()
    for parameter in command.params
    if not getattr(parameter, "is_flag", False)
]


def given(parameter: Any, value: str) -> list[str]:
    if parameter.param_type_name == "argument":
        return [value]
    return [f"{parameter.opts[0]}={value}"]


def required(command: Any, besides: Any) -> list[str]:
    found = []
    for parameter in command.params:
        if parameter.required and parameter is not besides:
            found += BENIGN[parameter.name]
    return found


Run = Callable[..., tuple[Any, str]]


@pytest.fixture
def run_here(
    answering_server: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Runs a command in this process: there are too many for a process each."""
    for name in [name for name in os.environ if name.startswith("TASKLOGS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TASKLOGS_SERVER", answering_server)
    monkeypatch.setenv("TASKLOGS_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", ["tasklogs", *arguments])
        for name, value in {**FAILS_LATER.get(arguments[0], {}), **(env or {})}.items():
            monkeypatch.setenv(name, value)
        code = main._run()
        out, err = capfd.readouterr()
        return code, out + err

    return run


def hiding(text: str) -> list[str]:
    return _HIDING.findall(text)


@pytest.mark.parametrize(
    ("path", "parameter"), GIVEN, ids=[f"{'-'.join(path)}-{one.name}" for path, one in GIVEN]
)
def test_no_command_prints_an_argument_raw(
    run_here: Run, path: tuple[str, ...], parameter: Any
) -> None:
    command = COMMANDS[path]
    value = f"{HOSTILE}=x" if "=" in (parameter.metavar or "") else HOSTILE
    arguments = [*path, *required(command, parameter), *given(parameter, value)]
    if path == ("task", "delete"):
        arguments.append("--yes")
    _, printed = run_here(*arguments)
    assert hiding(printed) == [], printed
    for variable in [parameter.envvar] if isinstance(parameter.envvar, str) else []:
        _, printed = run_here(*path, *required(command, parameter), env={variable: HOSTILE})
        assert hiding(printed) == [], printed


@pytest.mark.parametrize(
    "arguments",
    [
        (HOSTILE,),
        ("task", HOSTILE),
        ("task", "get", f"--{HOSTILE}"),
        ("task", "get", f"--ser{HOSTILE}"),
        ("task", "get", "local/demo", HOSTILE),
        ("token", HOSTILE),
    ],
)
def test_an_unknown_command_option_or_argument_is_not_printed_raw(
    run_here: Run, arguments: tuple[str, ...]
) -> None:
    code, printed = run_here(*arguments)
    assert code == 2
    assert hiding(printed) == [], printed
    assert "ev\\u200bil" in printed


def test_a_deleted_task_is_named_with_its_hidden_characters_escaped(run_here: Run) -> None:
    code, printed = run_here("task", "delete", "--yes", "ev\u200bil/x")
    assert (code, printed) == (0, "deleted ev\\u200bil/x\n")


def test_a_token_file_is_named_with_its_hidden_characters_escaped(run_here: Run) -> None:
    code, printed = run_here("task", "rotate-token", "local/demo", "--token-file", "ev\u200bil")
    assert code == 0
    assert "agent token in ev\\u200bil;" in printed
    assert Path("ev\u200bil").exists()


async def test_the_question_before_a_deletion_shows_which_task_it_is() -> None:
    finished = await run_on_terminal("task", "delete", "ev\u200bil\x1b[8m/x", typed="n\n")
    assert finished.code == 1
    assert "Delete ev\\u200bil\\x1b[8m/x and its log" in finished.stdout
