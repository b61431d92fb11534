"""Values of enums that a newer server sends: their number is printed."""

from __future__ import annotations

import json

import pytest

from tasklogs.cli.render import log_text
from tasklogs.cli.render.follow_append import AppendedText
from tasklogs.cli.render.follow_lines import FollowLines
from tasklogs.cli.render.task_text import describe
from tasklogs.client import decode
from tasklogs.client.events import EntriesChanged, EntryChange, FollowEvent, StatusChanged
from tasklogs.enums import TaskStatus
from tasklogs.v1 import task_logs_pb2, types_pb2
from tests.cli.samples import entry, task


def unknown_entry() -> types_pb2.TaskLogEntry:
    made = entry(1, "hello")
    made.type = 99  # type: ignore[assignment]
    return made


def status() -> StatusChanged:
    detail = task().status_detail
    detail.app.health = 98  # type: ignore[assignment]
    return StatusChanged(cursor="c", status=TaskStatus(99), detail=decode.status_detail(detail))


def entries() -> EntriesChanged:
    change = EntryChange(entry=decode.entry(unknown_entry()), appended="hello")
    return EntriesChanged(cursor="c", epoch=1, changes=(change,))


def shown(capsys: pytest.CaptureFixture[str], event: FollowEvent) -> dict[str, object]:
    FollowLines().show(event)
    parsed: dict[str, object] = json.loads(capsys.readouterr().out)
    return parsed


def test_lines_for_programs_have_the_number_as_the_apis_json_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    of_status = shown(capsys, status())["status"]
    of_entries = shown(capsys, entries())["entries"]

    assert isinstance(of_status, dict)
    assert isinstance(of_entries, dict)
    assert of_status["status"] == 99
    assert of_status["statusDetail"]["app"]["health"] == 98
    assert of_entries["logs"][0]["type"] == 99


def test_a_read_for_programs_has_the_number(capsys: pytest.CaptureFixture[str]) -> None:
    log_text.print_lines(task_logs_pb2.GetTaskLogsResponse(logs=[unknown_entry()]), [])

    assert json.loads(capsys.readouterr().out)["type"] == 99


def test_text_has_the_number_too(capsys: pytest.CaptureFixture[str]) -> None:
    printer = AppendedText("local/demo", escaped=True, on_terminal=False)
    printer.show(status())
    printer.show(entries())
    printer.finish()
    printed = capsys.readouterr()

    assert "#1 type 99, " in printed.out
    assert "local/demo is TaskStatus 99" in printed.err


def test_the_details_of_a_task_have_the_number() -> None:
    newer = task()
    newer.status_detail.build.transition = 97  # type: ignore[assignment]

    assert any("BuildTransition 97" in line for line in describe(newer))
