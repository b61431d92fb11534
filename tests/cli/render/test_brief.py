"""Tool calls, results and notices, shortened for a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tasklogs.cli.render.brief import LINES, MORE, short
from tasklogs.cli.render.terminal_text import visible
from tasklogs.enums import TaskLogType

CALL, RESULT, NOTICE = TaskLogType.TOOL_CALL, TaskLogType.TOOL_RESULT, TaskLogType.NOTICE
TEXTS = st.text(alphabet="ab\n\t 漢é\r\x1b\u200b\u0301🎉\u200d", max_size=200)


def test_a_tool_call_is_one_line_with_its_heading() -> None:
    assert short(CALL, "#1 tool call sh", '{\n "command": "ls"\n}\n', 80) == (
        '#1 tool call sh: { "command": "ls" }'
    )
    assert short(CALL, "#1 tool call sh", "", 80) == "#1 tool call sh"


def test_a_line_that_is_too_long_is_cut_and_marked() -> None:
    assert short(CALL, "#1", "x" * 100, 30) == "#1: " + "x" * 25 + "…"
    assert short(RESULT, "#1", "漢" * 100, 30) == "漢" * 14 + "…"
    assert cell_len(short(RESULT, "#1", "1\ufe0f\u20e3" * 100, 30)) <= 30


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("", ""),
        ("a", "a"),
        ("1\n2\n3\n4\n5", "1\n2\n3\n4\n5"),
        ("1\n2\n3\n4\n5\n", "1\n2\n3\n4\n5\n"),
        ("1\n2\n3\n4\n5\n6", f"1\n2\n3\n4\n5\n{MORE}"),
        ("1\n2\n3\n4\n5\n\n", f"1\n2\n3\n4\n5\n{MORE}"),
        ("\n" * 10_000, "\n" * LINES + MORE),
        ("x" * 1_000_000, "x" * 79 + f"…\n{MORE}"),
    ],
)
def test_the_first_lines_of_a_result_and_of_a_notice_are_shown(content: str, shown: str) -> None:
    assert short(RESULT, "", content, 80) == shown
    assert short(NOTICE, "", content, 80) == shown


@pytest.mark.parametrize(
    "type_", [0, TaskLogType.INPUT, TaskLogType.OUTPUT, TaskLogType.THOUGHT, 99]
)
def test_what_was_said_and_unknown_types_are_shown_whole(type_: int) -> None:
    content = "x\n" * 1000
    assert short(type_, "#1", content, 20) is content


@given(st.sampled_from([CALL, RESULT, NOTICE]), TEXTS, st.integers(20, 50))
def test_no_row_is_wider_than_the_terminal_and_nothing_steers_it(
    type_: int, content: str, columns: int
) -> None:
    shown = short(type_, "#1", content, columns)
    rows = shown.split("\n")
    assert len(rows) <= (1 if type_ == CALL else LINES + 1)
    # A tab takes at most the rest of the row.
    assert all(cell_len(row.replace("\t", "")) <= columns for row in rows)
    assert visible(shown) == shown


@given(st.sampled_from([CALL, RESULT]), st.text(alphabet="ab\n 漢", max_size=200), st.data())
def test_growth_is_growth_of_what_is_shown(type_: int, content: str, data: st.DataObject) -> None:
    beginning = content[: data.draw(st.integers(0, len(content)))]
    before, after = (short(type_, "#1", one, 20) for one in (beginning, content))
    assert after.startswith(before)


def test_of_a_long_content_only_the_beginning_is_read() -> None:
    class Counted(str):
        taken = 0

        def __getitem__(self, key: object) -> str:
            part = super().__getitem__(key)  # type: ignore[index]
            Counted.taken += len(part)
            return part

    short(RESULT, "", Counted("x\n" * 1_000_000), 80)
    assert Counted.taken <= LINES * 80 * 8
