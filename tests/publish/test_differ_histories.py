"""Random histories of a task app, seen with delays, must end as the task app's list."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs.publish import messages
from tasklogs.publish.differ import Differ
from tasklogs.publish.sent_tails import SentTails
from tasklogs.publish.source import Effect
from tests.support.fakes.reference_store import ReferenceStore

_TASK_APP = ["say", "say", "grow", "grow", "redraw", "withdraw"]
_SEEN = ["emit", "emit", "emit", "burst", "request", "read", "receive", "receive"]
_STREAM = ["send", "send", "send", "connect"]
_TEXTS = ["", "a", "b", "ü", "ab", "a€", "😀", "\x00"]

Step = tuple[str, str]


def steps(*operations: str) -> st.SearchStrategy[list[Step]]:
    step = st.tuples(st.sampled_from(operations), st.sampled_from(_TEXTS))
    return st.lists(step, min_size=20, max_size=80)


class History:
    """A task app, its emitter that lags, an agent's differ, and a store.

    Everything is delivered in the order in which AgentAPI delivers it: an event only after it
    happened, a list from `/messages` never older than the events before its request, a burst no
    newer than what the emitter has seen.
    """

    def __init__(self, *, over_acp: bool, limit_bytes: int) -> None:
        self.over_acp = over_acp
        self.limit_bytes = limit_bytes
        self.shown: list[Entry] = []
        self.emitted: list[Entry] = []
        self.process = 1
        self.restarts = 0
        self.moment = 0
        self.next_id = 0
        self.may_change = False
        self.store = ReferenceStore()
        self.sent_tails = SentTails()
        # The list that the current fetch will return, and the events since its request.
        self.fetch: list[Entry] | None = None
        self.newer: dict[int, Entry] | None = None
        self.connect()

    def run(self, history: list[Step]) -> None:
        for operation, text in history:
            self.step(operation, text)
            # Only a restart may open an epoch.
            assert len(self.store.epochs) <= 1 + self.restarts
        self.finish()

    def step(self, operation: str, text: str) -> None:
        match operation:
            case "say":
                self.say(text)
            case "grow" if self.may_change:
                self.grow(text)
            case "redraw" if self.may_change and not self.over_acp:
                self.show_tail(replace(self.shown[-1], content=text.encode(), time=self.now()))
            case "withdraw" if self.shown and not self.shown[-1].content:
                self.withdraw()
            case "restart_saved" | "restart_older" | "restart_empty":
                self.restart(operation)
            case "emit":
                self.emit()
            case "burst":
                self.read_burst()
            case "request":
                self.fetch, self.newer = None, {}
            case "read" if self.newer is not None and self.fetch is None:
                self.fetch = self.shown
            case "receive":
                self.receive_list()
            case "send":
                self.send()
            case "connect":
                self.connect()

    def finish(self) -> None:
        self.differ.show_list(self.shown, process=self.process)
        while self.differ.has_changes:
            self.send()
        assert self.store.entries == self.shown

    # --- the task app

    def say(self, text: str) -> None:
        # AgentAPI never adds a message after an empty one.
        if self.shown and not self.shown[-1].content:
            return
        entry_type = EntryType.INPUT if text == "a" else EntryType.OUTPUT
        entry = Entry(self.next_id, entry_type, self.now(), text.encode())
        self.shown = [*self.shown, entry]
        self.next_id += 1
        self.may_change = True

    def grow(self, text: str) -> None:
        tail = self.shown[-1]
        moment = tail.time if self.over_acp else self.now()
        self.show_tail(replace(tail, content=tail.content + text.encode(), time=moment))

    def withdraw(self) -> None:
        self.shown = self.shown[:-1]
        # The message before the withdrawn one is a user's, and does not change.
        self.may_change = False
        # The next tick emits no event for it, and comes before the next prompt.
        self.emit()

    def restart(self, kind: str) -> None:
        if kind == "restart_empty" or not self.shown:
            self.shown = [Entry(0, EntryType.OUTPUT, self.now(), b"banner")]
        elif kind == "restart_older":
            tail = self.shown[-1]
            earlier = Time(tail.time.seconds - 1, tail.time.nanos)
            self.show_tail(replace(tail, content=b"", time=earlier))
        self.next_id = self.shown[-1].id + 1
        self.may_change = True
        self.emitted = list(self.shown)
        self.process += 1
        self.restarts += 1
        self.fetch = self.newer = None
        self.read_burst()

    # --- what the agent sees

    def emit(self) -> None:
        """The emitter's tick: an event for each index where the list differs."""
        before, self.emitted = self.emitted, self.shown
        for index, entry in enumerate(self.shown):
            if index >= len(before) or before[index] != entry:
                if self.newer is not None:
                    self.newer[entry.id] = entry
                effect = self.differ.show_entry(entry, process=self.process)
                assert effect is not Effect.CHANGED or self.differ.has_changes

    def read_burst(self) -> None:
        self.differ.show_list(self.emitted, process=self.process, lags=True)
        self.note_tail()

    def receive_list(self) -> None:
        if self.fetch is not None and self.newer is not None:
            newer = self.newer.values()
            self.differ.show_list(self.fetch, process=self.process, newer=newer)
            self.note_tail()
            self.fetch = self.newer = None

    # --- the stream

    def send(self) -> None:
        append = self.differ.next_append(self.limit_bytes)
        if append is not None:
            self.store.apply(messages.log_append(append).append)
            self.note_tail()

    def connect(self) -> None:
        stored = messages.position(self.store.welcome())
        self.differ = Differ(stored, process=self.sent_tails.process_of(stored.tail))
        self.fetch = self.newer = None

    def show_tail(self, entry: Entry) -> None:
        self.shown = [*self.shown[:-1], entry]

    def note_tail(self) -> None:
        self.sent_tails.note(self.differ.tail_sent)

    def now(self) -> Time:
        self.moment += 1
        return Time(1_700_000_000 + self.moment, self.moment)


limits = st.sampled_from([1, 80, 200, 100_000])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps(*_TASK_APP, *_SEEN, *_STREAM), st.booleans(), limits)
def test_a_task_app_that_never_restarts_has_one_epoch_that_ends_as_shown(
    history: list[Step], over_acp: bool, limit_bytes: int
) -> None:
    History(over_acp=over_acp, limit_bytes=limit_bytes).run(history)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps(*_TASK_APP, *_SEEN, *_STREAM, "restart_saved", "restart_older", "restart_empty"),
    st.booleans(),
    limits,
)
def test_after_restarts_the_log_is_what_the_task_app_shows(
    history: list[Step], over_acp: bool, limit_bytes: int
) -> None:
    History(over_acp=over_acp, limit_bytes=limit_bytes).run(history)
