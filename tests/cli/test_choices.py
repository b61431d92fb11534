"""The API's enums as options: what people type, and what --help shows."""

from __future__ import annotations

from enum import IntEnum

import pytest
import typer

from tasklogs import enums
from tasklogs.cli.choices import choice_option
from tasklogs.v1 import task_logs_pb2, types_pb2
from tests.cli.command import run

ENUMS = (
    (enums.TaskStatus, types_pb2.TaskStatus.items()),
    (enums.BuildTransition, types_pb2.BuildTransition.items()),
    (enums.JobStatus, types_pb2.JobStatus.items()),
    (enums.AgentLifecycle, types_pb2.AgentLifecycle.items()),
    (enums.AppHealth, types_pb2.AppHealth.items()),
    (enums.LogSource, task_logs_pb2.LogSource.items()),
)


@pytest.mark.parametrize(("enum", "api"), ENUMS)
def test_every_value_of_the_api_but_the_unspecified_one_can_be_typed(
    enum: type[IntEnum], api: list[tuple[str, int]]
) -> None:
    option = choice_option(enum, "")
    typed = option.metavar.strip("<>").split("|")

    # The first value of each enum is its _UNSPECIFIED.
    assert [enum[option.parser(name)] for name in typed] == [value for _, value in api[1:]]
    for name, (api_name, _) in zip(typed, api[1:], strict=True):
        assert api_name.endswith(name.upper().replace("-", "_"))


@pytest.mark.parametrize("text", ["start-timeout", "START_TIMEOUT", "Start_Timeout"])
def test_case_and_underscores_do_not_matter(text: str) -> None:
    parse = choice_option(enums.AgentLifecycle, "").parser

    assert parse(text) == "START_TIMEOUT"


@pytest.mark.parametrize("text", ["", "unspecified", "yesterday", "1"])
def test_any_other_text_is_refused_with_the_choices(text: str) -> None:
    parse = choice_option(enums.LogSource, "").parser

    with pytest.raises(typer.BadParameter, match=r"is not one of 'live', 'snapshot'\."):
        parse(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("task", "list", "-o", "yaml"), "'--output' / '-o': 'yaml' is not one of 'text', 'json'."),
        (("serve", "--auth", "yaml"), "'yaml' is not one of 'none', 'jwt', 'mtls', 'dev'."),
        (("serve", "--bus", "yaml"), "TASKLOGS_BUS: must be postgres, or URLs"),
    ],
    ids=["output", "auth", "bus"],
)
async def test_a_refusal_has_no_words_of_the_library_that_checks(
    arguments: tuple[str, ...], said: str
) -> None:
    finished = await run(*arguments)

    assert finished.code == 2
    assert said in finished.stderr
    assert "Value error" not in finished.stderr
