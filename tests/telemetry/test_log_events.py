"""The list of log events is what the server logs, and every event is `noun.verb`."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

import tasklogs_server
from tasklogs_server.telemetry.log_events import LOG_EVENTS
from tests.support.log_events import Logged, is_noun_and_verb, logged_in

LOGGED = logged_in(Path(tasklogs_server.__file__).parent)
# Its lines are formatted by hand (telemetry.call_log).
BY_HAND = {"rpc.ended"}
# Levels and some fields are those of the library's record (process.log_output).
OF_LIBRARIES = {"library.logged"}


def by_event() -> dict[str, list[Logged]]:
    found: dict[str, list[Logged]] = defaultdict(list)
    for one in LOGGED:
        found[one.event].append(one)
    return found


@pytest.mark.parametrize("logged", LOGGED, ids=lambda one: f"{one.event} {one.place}")
def test_every_event_in_the_code_is_listed_and_is_a_noun_and_a_verb(logged: Logged) -> None:
    assert logged.event in {one.name for one in LOG_EVENTS}
    assert is_noun_and_verb(logged.event)


def test_every_listed_event_is_logged_with_its_level_and_its_fields() -> None:
    found = by_event()
    assert found.keys() == {one.name for one in LOG_EVENTS} - BY_HAND
    for listed in LOG_EVENTS:
        if listed.name not in BY_HAND | OF_LIBRARIES:
            calls = found[listed.name]
            assert {one.level for one in calls} == {listed.level}, listed.name
            assert {name for one in calls for name in one.fields} == set(listed.fields), listed.name


def test_the_list_is_sorted_and_names_no_event_twice() -> None:
    names = [one.name for one in LOG_EVENTS]
    assert names == sorted(set(names))


@pytest.mark.parametrize(
    "event", ["store.lost", "server.draining", "log.not_evicted", "a_b.c_died"]
)
def test_noun_and_verb(event: str) -> None:
    assert is_noun_and_verb(event)


@pytest.mark.parametrize(
    "event", ["", "task app ready", "token_refused", "Store.lost", "store.unavailable", "a.b.lost"]
)
def test_not_noun_and_verb(event: str) -> None:
    assert not is_noun_and_verb(event)


def test_calls_of_loggers_are_found_in_a_source(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package/one.py").write_text(
        "_log.info('a.done', x=1)\n"
        "self._log.exception('b.failed', **rest)\n"
        "_log.log(level, 'c.heard')\n"
        "_log.warning(event)\n"
        "other.info('not.logged')\n"
    )
    assert logged_in(tmp_path / "package") == [
        Logged("a.done", "info", frozenset({"x"}), "package/one.py:1"),
        Logged("b.failed", "error", frozenset({"**", "exception"}), "package/one.py:2"),
        Logged("c.heard", "", frozenset(), "package/one.py:3"),
        Logged("", "warning", frozenset(), "package/one.py:4"),
    ]
