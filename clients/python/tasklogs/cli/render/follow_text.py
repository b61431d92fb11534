"""Prints a follow as text: what pipes and terminals have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from tasklogs.cli.render.brief import BriefFollow, is_one_line
from tasklogs.cli.render.follow_lines import entry_message
from tasklogs.cli.render.log_text import heading, styles
from tasklogs.cli.render.stderr import print_notice
from tasklogs.cli.render.stdout import write
from tasklogs.cli.render.task_text import state
from tasklogs.cli.render.terminal_text import colours_wanted, visible_name
from tasklogs.cli.render.tidy import TidyFollow
from tasklogs.cli.render.tool_calls import ToolCalls
from tasklogs.client.entry import LogEntry
from tasklogs.client.events import (
    CaughtUp,
    EntriesChanged,
    EntryChange,
    EntryWithdrawn,
    EpochStarted,
    FollowEvent,
    Progress,
    StatusChanged,
)
from tasklogs.enums import TaskStatus
from tasklogs.v1 import types_pb2


class FollowText(ABC):
    """Prints entries under headings. The last one stays open, because it may still change."""

    def __init__(
        self,
        task: str,
        *,
        from_the_start: bool = True,
        tidied: bool = False,
        columns: int | None = None,
    ) -> None:
        """`from_the_start`: the follow begins with all entries of the log.

        `tidied`: leave out what screens are padded with. `columns`: shorten tool calls, results and
        notices for a terminal of this width.
        """
        self._task = visible_name(task)
        self._from_the_start = from_the_start
        self._tidy = TidyFollow() if tidied else None
        self._brief = None if columns is None else BriefFollow(columns)
        self._calls = ToolCalls()
        self._call: int | None = None
        """The tool call that the open entry is the result of, if its heading names it."""
        self._coloured = colours_wanted()
        self._style = self._plain = ""
        """What begins and ends the style of the open entry's content."""
        self._status: TaskStatus | None = None
        self._any_entry = False
        self._open: tuple[int, int] | None = None
        """Epoch and id of the last printed entry."""

    def show(self, event: FollowEvent) -> None:
        """Print `event`."""
        match event:
            case StatusChanged():
                self._show_status(event.status)
            case EntriesChanged():
                for change in event.changes:
                    self._show_change(event.epoch, change)
            case EntryWithdrawn():
                self._close()
                self.notice(f"#{event.id} was withdrawn: it is no longer part of the conversation")
            case EpochStarted():
                self._close()
                self._calls.forget()
                self.notice(f"{self._task}: epoch {event.epoch}, a new conversation begins")
            case CaughtUp():
                if self._from_the_start and not self._any_entry:
                    self.notice(f"{self._task}: no entries yet")
            case Progress():
                self._pause()

    def notice(self, message: str) -> None:
        """Print a line on stderr that is not an entry."""
        print_notice(message)

    def finish(self) -> None:
        """Print the rest of the last entry, and end its line."""
        self._close()

    def _show_status(self, status: TaskStatus) -> None:
        if status == self._status:
            return
        self._status = status
        if status is not TaskStatus.ACTIVE:
            self._pause()
        self.notice(f"{self._task} is {state(types_pb2.TaskStatus.ValueType(status))}")

    def _show_change(self, epoch: int, change: EntryChange) -> None:
        self._any_entry = True
        is_new = self._open != (epoch, change.entry.id)
        if self._tidy is not None:
            change = self._tidy.begin(change) if is_new else self._tidy.next(change)
        if not is_new:
            self._change(change if self._brief is None else self._brief.next(change))
            return
        self._close()
        entry = change.entry
        self._open = (epoch, entry.id)
        self._call = self._calls.call_of(entry.id, entry.type, entry.call_id)
        if self._coloured:
            _, self._style, self._plain = styles(entry.type)
        if self._brief is not None:
            change = self._brief.begin(change, self._heading(entry))
        self._begin(change.entry)

    def _close(self) -> None:
        if self._open is not None:
            self._end()
            self._open = None

    def _write_heading(self, entry: LogEntry, remark: str = "") -> None:
        if self._brief is not None and is_one_line(entry.type) and not remark:
            return  # it is in the content
        style, _, plain = styles(entry.type) if self._coloured else ("", "", "")
        write(f"{style}{self._heading(entry)}{remark}{plain}\n")

    def _heading(self, entry: LogEntry) -> str:
        return heading(entry_message(entry, content=False), self._call)

    def _write_content(self, text: str) -> None:
        write(f"{self._style}{text}{self._plain}" if self._style and text else text)

    @abstractmethod
    def _begin(self, entry: LogEntry) -> None:
        """Print `entry`, which is new."""

    @abstractmethod
    def _change(self, change: EntryChange) -> None:
        """Print the change of the open entry."""

    @abstractmethod
    def _pause(self) -> None:
        """Print what was held back: the open entry will not change soon."""

    @abstractmethod
    def _end(self) -> None:
        """End the open entry, which is final, with an empty line."""
