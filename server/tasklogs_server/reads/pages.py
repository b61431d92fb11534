"""Pages of logs in memory, in the form in which they are sent: the page cache."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID

from tasklogs_server.domain.names import TaskRef
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.store.log_reads import LogPage, PageQuery
from tasklogs_server.store.records import is_lost
from tasklogs_server.store.task_states import LogVersion, TaskState

# What a page costs without its entries, and what each question that it answers costs, about.
_PAGE_COST_BYTES = 2048
_QUESTION_COST_BYTES = 512

Question: TypeAlias = tuple[TaskRef, PageQuery]


class Decided(NamedTuple):
    """What the first page of a read decided: the rest of a response, besides the page."""

    snapshot: bool
    snapshot_at: datetime | None
    status: TaskStatus
    revision: int
    """The log's revision at the first page."""


class Page:
    """A page of a log at one version of it. The bytes are those of the last response with it."""

    __slots__ = (
        "_body",
        "_decided",
        "_entries_bytes",
        "_made_for",
        "end",
        "epoch",
        "first_id",
        "has_tail_parts",
        "is_known_old",
        "is_steady",
        "key",
        "lost_after",
        "next_ordinal",
        "questions",
        "start",
        "state",
        "task_id",
        "version",
    )

    def __init__(self, page: LogPage, types: tuple[int, ...]) -> None:
        entries = page.entries
        self.task_id = page.state.task_id
        self.version: LogVersion = page.state.version
        self.state: TaskState = page.state
        """A state in which the log had this version, to compare with the next one."""
        self.epoch = page.epoch
        self.first_id = page.first_id
        self.start = page.start
        self.end = page.end
        self.next_ordinal = entries.next_ordinal
        self.lost_after: Sequence[int] | None = page.lost_after
        self.has_tail_parts = entries.has_tail_parts
        # As text: its hash is computed once.
        self.key = str(
            (
                self.task_id.hex,
                self.epoch,
                self.start,
                self.next_ordinal,
                self.end,
                types,
                self.lost_after is None,
            )
        )
        self.is_steady = True
        """Whether it is worth to ask if the log still has this version, before it is read again."""
        self.is_known_old = False
        """Whether this process has changed the log since."""
        self.questions: set[Question] = set()
        """What this page is the answer to, as long as the log has this version."""
        self._body = entries.encoded
        self._entries_bytes = len(entries.encoded)
        self._decided: Decided | None = None
        self._made_for: Callable[[], object] | None = None
        """Returns the query of the last response. A request may have 256 KB: it is not held."""

    @property
    def size_bytes(self) -> int:
        """What it holds, about."""
        return self._entries_bytes + _PAGE_COST_BYTES + _QUESTION_COST_BYTES * len(self.questions)

    @property
    def revision(self) -> int:
        """The log's revision."""
        return self.version.revision

    @property
    def has_next(self) -> bool:
        """Whether another page follows."""
        return self.next_ordinal < self.end

    def is_of(self, state: TaskState) -> bool:
        """Whether the log still is as this page shows it."""
        if state is self.state:
            return True
        return state.version == self.version and state.task_id == self.task_id

    def has_lost(self, revision: int) -> bool:
        """Whether the revision of a page token is of a history that the store has lost.

        Call it only for later pages: the first one has not read what was lost.
        """
        return is_lost(revision, self.revision, self.lost_after or ())

    def response(
        self, decided: Decided, query: object, encode: Callable[[Page, Decided], bytes]
    ) -> bytes:
        """Return the whole response. `encode` returns everything of it but the entries.

        It is made once for callers who are told the same. The token of a next page is for one
        `query`.
        """
        if decided == self._decided and (not self.has_next or self._is_made_for(query)):
            return self._body
        with memoryview(self._body)[: self._entries_bytes] as entries:
            body = b"".join((entries, encode(self, decided)))
        self._body, self._decided, self._made_for = body, decided, weakref.ref(query)
        return body

    def _is_made_for(self, query: object) -> bool:
        return self._made_for is not None and self._made_for() is query


class PageCache:
    """Pages in memory, up to a limit in bytes. Those that were used least recently go first.

    No page of it is an answer by itself: the caller compares its version with the log's.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._pages: OrderedDict[str, Page] = OrderedDict()
        self._by_question: dict[Question, Page] = {}
        self._of_tasks: dict[UUID, set[Page]] = {}
        self.held_bytes = 0
        self.hits = 0
        self.misses = 0

    @property
    def pages(self) -> Collection[Page]:
        """All pages, the one that was used least recently first."""
        return self._pages.values()

    def find(self, question: Question) -> Page | None:
        """Return the page that was the last answer to a question."""
        page = self._by_question.get(question)
        if page is not None:
            self._pages.move_to_end(page.key)
        return page

    def put(self, question: Question, page: Page) -> Page:
        """Keep a page that was just read. Return it, or the same page if it is held already."""
        former = self._by_question.get(question)
        is_steady = former is None or former.is_known_old or former.revision == page.revision
        held = self._pages.get(page.key)
        if held is None or held.version != page.version:
            self._replace(page)
            held = page
        else:
            held.state, held.is_known_old = page.state, False
        if held.key in self._pages:
            self._move(question, held)
            self._pages.move_to_end(held.key)
        held.is_steady = is_steady
        self._trim()
        return held

    def changed(self, task_id: UUID, revision: int) -> None:
        """The log has this revision now: no earlier page of it is worth a question any more."""
        for page in self._of_tasks.get(task_id, ()):
            if page.revision < revision:
                page.is_steady, page.is_known_old = False, True

    def suspect(self, task_id: UUID) -> None:
        """Each page of a task is to be read again before it is worth a question."""
        for page in self._of_tasks.get(task_id, ()):
            page.is_steady = False

    def forget(self, task_id: UUID) -> None:
        """Drop the pages of a task, which was deleted."""
        for page in list(self._of_tasks.get(task_id, ())):
            self._drop(page)

    def clear(self) -> None:
        """Drop all pages."""
        self._pages.clear()
        self._by_question.clear()
        self._of_tasks.clear()
        self.held_bytes = 0

    def _replace(self, page: Page) -> None:
        """Hold a page instead of an earlier version of it, and of another with the same tail.

        A tail may have a megabyte, and every read that reaches the end of a log has it. While it
        grows, one of them is held.
        """
        if page.key in self._pages:
            self._drop(self._pages[page.key])
        if page.has_tail_parts:
            for other in list(self._of_tasks.get(page.task_id, ())):
                if other.has_tail_parts:
                    self._drop(other)
        if page.size_bytes > self._limit:
            return
        self._pages[page.key] = page
        self._of_tasks.setdefault(page.task_id, set()).add(page)
        self.held_bytes += page.size_bytes

    def _move(self, question: Question, page: Page) -> None:
        """Let a page be the answer to a question, instead of the one that was."""
        former = self._by_question.get(question)
        if former is page:
            return
        if former is not None:
            former.questions.discard(question)
            self.held_bytes -= _QUESTION_COST_BYTES
            if not former.questions:
                self._drop(former)
        page.questions.add(question)
        self.held_bytes += _QUESTION_COST_BYTES
        self._by_question[question] = page

    def _drop(self, page: Page) -> None:
        del self._pages[page.key]
        self.held_bytes -= page.size_bytes
        for question in page.questions:
            del self._by_question[question]
        of_task = self._of_tasks[page.task_id]
        of_task.discard(page)
        if not of_task:
            del self._of_tasks[page.task_id]

    def _trim(self) -> None:
        while self.held_bytes > self._limit:
            self._drop(next(iter(self._pages.values())))
