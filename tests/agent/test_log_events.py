"""The events of the agent's own log have names of one form, and all of them are listed."""

from __future__ import annotations

import tasklogs
from tasklogs.agent.log_events import LOG_EVENTS
from tasklogs.log_output import LIBRARY_LOGGED, RECORDS_LOST
from tests.support.log_events import NOUN_VERB, log_events_of


def test_each_event_in_the_code_is_noun_verb() -> None:
    written = log_events_of(tasklogs)
    assert written
    assert [one for one in written if one.name is None or not NOUN_VERB.fullmatch(one.name)] == []


def test_the_list_has_each_event_with_its_level_and_fields() -> None:
    written = {(one.name, one.level, one.fields) for one in log_events_of(tasklogs)}
    own = [one for one in LOG_EVENTS if one not in (LIBRARY_LOGGED, RECORDS_LOST)]
    assert written == {(one.name, one.level, frozenset(one.fields)) for one in own}
