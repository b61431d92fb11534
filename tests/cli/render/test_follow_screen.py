"""An entry that grows in place: what a terminal shows after each change."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.cli.render import follow_screen, follow_text
from tasklogs.cli.render.brief import short
from tasklogs.cli.render.follow_screen import ScreenText, rows
from tasklogs.cli.render.terminal_text import visible
from tasklogs.client.assembly import Assembly
from tasklogs.enums import TaskLogType
from tasklogs.v1 import task_logs_pb2, types_pb2
from tests.support.fakes.log_server import (
    ACTIVE,
    PAUSED,
    entries,
    entry,
    progress,
    status,
    withdrawn,
)
from tests.support.fakes.terminal import Terminal

HEADING = "#1 agent, 2026-11-18 11:06:41+00:00"


@dataclass
class Shown:
    """A ScreenText that prints on `terminal`, fed with messages as a server sends them."""

    terminal: Terminal
    screen: ScreenText
    clock: list[float]
    assembly: Assembly = field(default_factory=Assembly)
    revision: int = 0

    def send(self, message: task_logs_pb2.FollowTaskLogsResponse) -> None:
        event = self.assembly.apply(message)
        if event is not None:
            self.screen.show(event)

    def content(
        self,
        content: str,
        entry_id: int = 1,
        dropped_bytes: int = 0,
        type_: TaskLogType | None = None,
        name: str = "",
    ) -> None:
        self.revision += 1
        sent = entry(entry_id, content, self.revision, dropped_bytes)
        if type_ is not None:
            sent.type = types_pb2.TaskLogType.ValueType(type_)
        sent.name = name
        self.send(entries("c", sent))


class Show(Protocol):
    def __call__(self, columns: int, lines: int) -> Shown: ...


def shown_on(
    columns: int, lines: int, monkeypatch: pytest.MonkeyPatch, *, brief: bool = False
) -> Shown:
    terminal = Terminal(columns, lines)
    clock = [0.0]
    for module in (follow_screen, follow_text):
        monkeypatch.setattr(module, "write", terminal.feed)

    def notice(message: str) -> None:
        terminal.feed(f"{message}\n")

    for module in (follow_screen, follow_text):
        monkeypatch.setattr(module, "print_notice", notice)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TZ", "UTC")
    size = os.terminal_size((columns, lines))
    screen = ScreenText(
        "local/demo",
        size=lambda: size,
        clock=lambda: clock[0],
        columns=columns if brief else None,
    )
    return Shown(terminal, screen, clock)


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Show:
    return partial(shown_on, monkeypatch=monkeypatch)


def test_growth_is_appended_and_the_next_entry_follows_below(show: Show) -> None:
    shown = show(60, 24)
    for content in ("4", "42", "42.\nAsk", "42.\nAsk on."):
        shown.content(content)
        assert shown.terminal.text() == f"{HEADING}\n{content}"
    shown.content("And?", entry_id=2)

    assert shown.terminal.text() == (
        f"{HEADING}\n42.\nAsk on.\n\n#2 user, 2026-11-18 11:06:42+00:00\nAnd?"
    )


def test_a_redrawn_line_is_replaced_in_place(show: Show) -> None:
    shown = show(60, 24)
    for content in ("Hm\n* thinking 1s\n>", "Hm\n* thinking 2s\n>", "Hm\nDone."):
        shown.content(content)

        assert shown.terminal.text() == f"{HEADING}\n{content}"


def test_lines_that_were_wrapped_are_replaced_whole(show: Show) -> None:
    shown = show(40, 24)
    for content in ("a" * 40, "a" * 39 + "b", "b" * 100, "b" * 80 + "é" * 3, "漢" * 21, "x"):
        shown.content(content)

        assert shown.terminal.text() == f"{HEADING}\n{content}"


def test_a_change_above_the_screen_is_reprinted_from_its_line_and_marked(show: Show) -> None:
    shown = show(60, 6)
    shown.content("one\ntwo\n3\n4\n5\n6\n7\n8")

    shown.content("one\nTWO\n3\n4\n5\n6\n7\n8\n9")

    assert shown.terminal.text() == (
        f"{HEADING}\none\ntwo\n3\n4\n5\n6\n7\n8\n\n"
        f"{HEADING}, rewritten from line 2\nTWO\n3\n4\n5\n6\n7\n8\n9"
    )


def test_an_entry_rewritten_above_the_screen_is_not_reprinted_each_time(
    show: Show,
) -> None:
    shown = show(60, 6)
    rest = "\n1\n2\n3\n4\n5\n6\n7"
    for number in range(50):
        shown.content(f"draft {number}{rest}")

    assert shown.terminal.text().count("draft") == 2

    shown.clock[0] += 10
    shown.content(f"draft 50{rest}")
    assert shown.terminal.text().count("draft") == 3

    shown.content(f"final{rest}")
    shown.send(progress("c"))
    assert shown.terminal.text().endswith(f"{HEADING}, rewritten\nfinal{rest}")


def test_a_held_back_entry_is_printed_before_the_next(show: Show) -> None:
    shown = show(60, 6)
    rest = "\n1\n2\n3\n4\n5\n6\n7"
    for text in ("a", "b", "c"):
        shown.content(f"{text}{rest}")

    shown.content("And?", entry_id=2)

    assert f"rewritten\nc{rest}\n\n#2 user" in shown.terminal.text()


def test_a_notice_has_its_own_line_and_the_entry_continues_below(show: Show) -> None:
    shown = show(60, 24)
    shown.content("It is")
    shown.send(status("c", PAUSED))
    shown.content("It is 42")
    shown.content("It was 42")

    assert shown.terminal.text() == (
        f"{HEADING}\nIt is\nlocal/demo is paused\n{HEADING}, continued\n 42\n\n"
        f"{HEADING}, rewritten\nIt was 42"
    )


def test_a_withdrawn_entry_is_reported(show: Show) -> None:
    shown = show(60, 24)
    shown.content("Oops")
    shown.revision += 1
    shown.send(withdrawn("c", 1, shown.revision))

    assert shown.terminal.text() == (
        f"{HEADING}\nOops\n\n#1 was withdrawn: it is no longer part of the conversation\n"
    )


def test_the_end_leaves_the_cursor_on_a_line_of_its_own(show: Show) -> None:
    shown = show(60, 24)
    shown.send(status("c", ACTIVE))
    shown.content("It is")
    shown.screen.finish()

    assert shown.terminal.text().endswith("It is\n\n")


def test_an_entry_past_its_limit_still_only_grows(show: Show) -> None:
    shown = show(60, 24)
    shown.content("0123456789")
    shown.content("456789abc", dropped_bytes=4)
    shown.content("456789abcd", dropped_bytes=4)

    assert shown.terminal.text() == f"{HEADING}\n0123456789abcd"


def test_control_characters_are_escaped_however_growth_splits_them(show: Show) -> None:
    shown = show(60, 24)
    content = "\x1b[2J\r\nb\rc\r"
    for end in range(1, len(content) + 1):
        shown.content(content[:end])
    shown.screen.finish()

    assert shown.terminal.text() == f"{HEADING}\n\\x1b[2J\nb\\x0dc\\x0d\n\n"


def test_after_a_resize_nothing_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = shown_on(60, 24, monkeypatch)
    shown.content("one")
    monkeypatch.setattr(shown.screen, "_size", lambda: os.terminal_size((30, 24)))

    shown.content("two")

    assert shown.terminal.text() == f"{HEADING}\none\n\n{HEADING}, rewritten\ntwo"


def test_after_a_resize_only_what_was_drawn_since_is_redrawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = shown_on(60, 24, monkeypatch)
    shown.content("one\n")
    monkeypatch.setattr(shown.screen, "_size", lambda: os.terminal_size((30, 24)))
    shown.content("one\ntwo")
    shown.content("one\n2")
    shown.content("1\n2")

    assert shown.terminal.text() == f"{HEADING}\none\n2\n\n{HEADING}, rewritten\n1\n2"


CONTENTS = st.lists(st.text(alphabet="ab\n\t漢\r\x1b", max_size=30), min_size=1, max_size=8)


@given(CONTENTS, st.integers(8, 50))
def test_whatever_the_changes_the_screen_shows_the_last_content(
    contents: list[str], columns: int
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        shown = shown_on(columns, 200, monkeypatch)
        shown.screen._coloured = False
        for content in contents:
            shown.content(content)
        shown.screen.finish()
        expected = Terminal(columns, 200)
        expected.feed(f"{HEADING}\n{visible(contents[-1])}")
        expected.feed("\n" if contents[-1].endswith("\n") else "\n\n")

        assert shown.terminal.text() == expected.text()


TOOL_TYPES = (TaskLogType.TOOL_CALL, TaskLogType.TOOL_RESULT, TaskLogType.NOTICE)
HEADINGS = {
    TaskLogType.TOOL_RESULT: "#1 tool result sh, 2026-11-18 11:06:41+00:00",
    TaskLogType.NOTICE: "#1 notice sh, 2026-11-18 11:06:41+00:00",
}


@given(st.sampled_from(TOOL_TYPES), CONTENTS, st.integers(60, 90))
def test_whatever_the_changes_a_short_entry_shows_what_a_read_would(
    type_: TaskLogType, contents: list[str], columns: int
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        shown = shown_on(columns, 200, monkeypatch, brief=True)
        for content in contents:
            shown.content(content, type_=type_, name="sh")
        shown.screen.finish()
        line = f"#1 tool call sh, {HEADING.removeprefix('#1 agent, ')}"
        expected = Terminal(columns, 200)
        if type_ in HEADINGS:
            expected.feed(f"{HEADINGS[type_]}\n")
        text = short(type_, line, contents[-1], columns)
        expected.feed(visible(text))
        expected.feed("\n" if text.endswith("\n") else "\n\n")

        assert shown.terminal.text() == expected.text()


def test_a_tool_call_that_grows_stays_one_row_and_the_next_entry_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = shown_on(60, 24, monkeypatch, brief=True)
    for content in ('{"command":', '{"command":\n "ls -la', '{"command":\n "ls -la"}' + " x" * 99):
        shown.content(content, type_=TaskLogType.TOOL_CALL, name="sh")
    shown.content("1\n2\n3\n4\n5\n6\n", 2, type_=TaskLogType.TOOL_RESULT)
    shown.content("1\n2\n3\n4\n5\n6\n7\n", 2, type_=TaskLogType.TOOL_RESULT)
    shown.content("Done.", 3)

    assert shown.terminal.text() == (
        '#1 tool call sh, 2026-11-18 11:06:41+00:00: {"command": "ls…\n\n'
        "#2 tool result, 2026-11-18 11:06:42+00:00\n1\n2\n3\n4\n5\n… (more with -v)\n\n"
        "#3 agent, 2026-11-18 11:06:43+00:00\nDone."
    )


@given(st.text(alphabet="ab\n\t漢é", max_size=80), st.integers(2, 30))
def test_rows_are_counted_as_a_terminal_takes_them(text: str, width: int) -> None:
    terminal = Terminal(width, 1000)
    terminal.feed(text)

    assert rows(text, width) == len(terminal._rows)
