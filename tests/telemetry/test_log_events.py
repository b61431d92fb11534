"""The list of log events is what the server logs, and every event is `noun.verb`."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

import tasklogs_server
from tasklogs.agent.log_events import LOG_EVENTS as AGENT_EVENTS
from tasklogs_server.telemetry.log_events import LOG_EVENTS
from tests.support.log_events import NOUN_VERB, WrittenEvent, log_events_of

ROOT = Path(__file__).parents[2]
WRITTEN = log_events_of(tasklogs_server)
# Written elsewhere: call_log formats its lines by hand, and log_output is the agent's, too.
WRITTEN_OTHERWISE = {"rpc.ended", "library.logged", "records.lost"}
# What documents name that begins like an event.
NO_EVENTS = {
    *("grpc.aio", "grpc.channelz", "grpc.reflection", "grpc.use_local_subchannel_pool"),
    *("grpc.max_metadata_size", "grpc.absolute_max_metadata_size"),
    *("log.cursor", "log.last_error", "log.stored", "log.task_id"),
}
IRREGULAR_VERBS = {"found", "kept", "left", "lost", "read", "sent", "unheard", "withheld"}


@pytest.mark.parametrize("event", WRITTEN, ids=lambda one: f"{one.name} {one.where}")
def test_every_event_in_the_code_is_listed(event: WrittenEvent) -> None:
    assert event.name in {one.name for one in LOG_EVENTS}


def test_every_listed_event_is_logged_with_its_level_and_its_fields() -> None:
    calls: dict[str | None, list[WrittenEvent]] = defaultdict(list)
    for event in WRITTEN:
        calls[event.name].append(event)
    assert calls.keys() == {one.name for one in LOG_EVENTS} - WRITTEN_OTHERWISE
    for listed in LOG_EVENTS:
        if listed.name not in WRITTEN_OTHERWISE:
            found = calls[listed.name]
            assert {level_of(one) for one in found} == {listed.level}, listed.name
            assert {name for one in found for name in fields_of(one)} == set(listed.fields), listed


@pytest.mark.parametrize("name", [one.name for one in LOG_EVENTS])
def test_a_listed_event_is_a_noun_and_a_verb(name: str) -> None:
    """The verb is in its past or -ing form. Either may have several words."""
    assert NOUN_VERB.fullmatch(name)
    verb = name.rpartition("_" if "_" in name.partition(".")[2] else ".")[2]
    assert verb.endswith(("ed", "ing")) or verb in IRREGULAR_VERBS


def test_the_list_is_sorted_and_names_no_event_twice() -> None:
    names = [one.name for one in LOG_EVENTS]
    assert names == sorted(set(names))


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*.md")), ids=lambda one: one.name)
def test_every_event_that_a_document_names_exists(document: Path) -> None:
    events = {one.name for one in (*LOG_EVENTS, *AGENT_EVENTS)}
    nouns = {name.partition(".")[0] for name in events}
    named = re.findall(r"`([a-z_]+)(\.[a-z_]+)`", document.read_text())
    assert {noun + verb for noun, verb in named if noun in nouns} <= events | NO_EVENTS


def level_of(event: WrittenEvent) -> str:
    return "error" if event.level == "exception" else event.level


def fields_of(event: WrittenEvent) -> frozenset[str]:
    return event.fields | {"exception"} if event.level == "exception" else event.fields
