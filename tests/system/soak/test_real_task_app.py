"""The records of a real AgentAPI, and a short soak with one where it is installed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.system.soak.contents import mark
from tests.system.soak.journal import Journal, read_journal
from tests.system.soak.options import Options
from tests.system.soak.real_task_app import FAKES_ONLY, Recorder, executable
from tests.system.soak.report import lines
from tests.system.soak.run import chosen, soak
from tests.system.soak.schedule import all_faults
from tests.system.soak.shown import Shown, replay
from tests.system.soak.verdict import judge


class Recording:
    """A recorder, and what its records say."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.recorder = Recorder(Journal(path))

    def update(self, entry_id: int, content: str, *, lags: bool = False) -> None:
        event = {"id": entry_id, "role": "agent", "message": content}
        self.recorder.updated(event, lags=lags)

    @property
    def kinds(self) -> list[str]:
        return [record["kind"] for record in read_journal(self._path)]

    @property
    def shown(self) -> Shown:
        return replay(read_journal(self._path))

    def last(self) -> list[tuple[int, str]]:
        return self.shown.states[-1].last(None)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path / "shown.jsonl")


def listed(*contents: str) -> list[dict[str, Any]]:
    return [
        {"id": number, "role": "agent", "content": content}
        for number, content in enumerate(contents)
    ]


def test_a_growing_message_stays_the_same_message(recording: Recording) -> None:
    recording.recorder.listed(listed("hello", "yo"))
    recording.update(1, "you said")
    recording.update(1, "other words")  # a redraw need not begin with what it replaces
    assert recording.kinds == ["list", "redraw", "redraw"]
    assert recording.last() == [(0, mark("hello")), (1, mark("other words"))]
    assert recording.shown.is_later(1, mark("yo"), mark("other words"))


def test_screens_of_two_processes_may_begin_with_the_same_words() -> None:
    screens = ("You said:   ", "You said: a "), ("You said:   ", "You said: b ")
    shown = replay(
        record
        for start, (first, second) in enumerate(screens, start=1)
        for record in (
            {"t": start, "kind": "start", "number": start},
            {"t": start, "kind": "list", "messages": []},
            {"t": start, "kind": "say", "message": [1, "agent", first]},
            {"t": start, "kind": "redraw", "content": second},
        )
    )
    for _, second in screens:
        assert shown.is_later(1, mark("You said:   "), mark(second))
        assert not shown.is_later(1, mark(second), mark("You said:   "))
    assert not shown.is_later(1, mark("You said: a "), mark("You said: b "))


def test_a_list_that_an_event_has_overtaken_is_not_recorded(recording: Recording) -> None:
    recording.recorder.listed(listed("hello"))
    recording.update(1, "yo")
    recording.recorder.listed(listed("hello"))
    recording.update(1, "you said")
    assert recording.kinds == ["say", "say", "redraw"]
    assert recording.shown.is_later(1, mark("yo"), mark("you said"))


def test_what_is_shown_again_is_recorded_once(recording: Recording) -> None:
    recording.recorder.listed(listed("hello"))
    recording.recorder.listed(listed("hello"))
    recording.update(1, "a")
    recording.update(1, "a")
    assert recording.kinds == ["say", "say"]


def test_events_of_a_stream_that_lags_change_only_what_is_new(recording: Recording) -> None:
    recording.update(0, "a")
    recording.update(0, "ab")
    recording.update(0, "a", lags=True)
    assert recording.last() == [(0, mark("ab"))]
    recording.update(0, "abc", lags=True)
    assert recording.last() == [(0, mark("abc"))]


def test_a_conversation_that_starts_over_is_a_new_list(recording: Recording) -> None:
    recording.recorder.listed(listed("hello", "yes", "no"))
    recording.recorder.listed(listed("hello again"))
    assert recording.kinds == ["list", "list"]
    assert recording.last() == [(0, mark("hello again"))]


def test_it_is_ready_once_it_was_stable(recording: Recording) -> None:
    for status in ("running", "stable", "running", "stable"):
        recording.recorder.status(status)
    assert recording.kinds == ["ready"]


def test_a_loaded_conversation_makes_it_ready_before_it_says_stable(recording: Recording) -> None:
    recording.recorder.listed(listed("banner"))
    assert not recording.shown.states[-1].is_ready
    recording.recorder.updated({"id": 1, "role": "user", "message": "why?"}, lags=False)
    assert recording.shown.states[-1].is_ready


def test_faults_that_only_a_fake_does_are_left_out() -> None:
    every = {kind.name for kind in all_faults()}
    assert every > FAKES_ONLY
    options = Options(servers=3, workers=2, bus="nats", real_agentapi=True)
    assert {kind.name for kind in chosen(options)} == every - FAKES_ONLY


@pytest.mark.skipif(
    executable() is None,
    reason="no AgentAPI in .tools/bin or TASKLOGS_AGENTAPI: `make agentapi` says why",
)
@pytest.mark.timeout(300)
async def test_a_short_soak_with_real_processes_finds_nothing(tmp_path: Path) -> None:
    options = Options(
        seconds=15.0, tasks=2, only=("agents-killed", "server-drained"), real_agentapi=True
    )
    told: list[str] = []
    ledger = await soak(options, tmp_path, told.append)
    verdict = await asyncio.to_thread(judge, ledger)
    told += lines(verdict)
    assert verdict.is_good, "\n".join(told)
    assert verdict.figures.acknowledged > 10, "\n".join(told)
