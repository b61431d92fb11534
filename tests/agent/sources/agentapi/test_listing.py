from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.agent.sources.agentapi import json as wire
from tasklogs.agent.sources.agentapi.faults import TaskAppError
from tasklogs.agent.sources.agentapi.listing import Listing, read
from tests.support.fakes.task_app import rfc3339

PADDING = "x" * 70_000


def body(*contents: str, first_id: int = 0) -> bytes:
    messages = [
        {"id": first_id + n, "content": content, "role": "agent", "time": rfc3339(n + 1)}
        for n, content in enumerate(contents)
    ]
    text = json.dumps({"$schema": "x", "messages": messages}, separators=(",", ":"))
    return text.encode()


def test_unchanged_messages_are_not_parsed_again() -> None:
    first = read(body(PADDING, "a", "b"), None)
    assert (first.skipped, len(first.entries)) == (0, 3)
    second = read(body(PADDING, "a", "bc", "d"), first.prefix)
    assert second.skipped == 2
    assert [entry.content for entry in second.entries] == [b"bc", b"d"]
    third = read(body(PADDING, "a", "bc", "d"), second.prefix)
    assert (third.skipped, [entry.content for entry in third.entries]) == (3, [b"d"])
    fourth = read(body(PADDING, "a", "bc", "d"), third.prefix)
    assert fourth == third


def test_a_change_in_an_earlier_message_is_read() -> None:
    known = read(body(PADDING, "a", "b"), None).prefix
    assert read(body(PADDING, "A", "b"), known).skipped == 0
    assert read(body("b"), known).skipped == 0


def test_a_withdrawn_message_is_missed() -> None:
    known = read(body(PADDING, "a", "b"), None).prefix
    assert len(read(body(PADDING, "a"), known).entries) == 2
    assert read(body(PADDING, "a"), known).skipped == 0


def test_content_that_looks_like_a_message_does_not_deceive() -> None:
    known = read(body(PADDING, '{"id":5,"content":"', "b"), None).prefix
    listing = read(body(PADDING, '{"id":5,"content":"', 'b {"id":7'), known)
    assert (listing.skipped, len(listing.entries)) == (2, 1)


def test_nested_objects_in_messages_are_ignored() -> None:
    nested = body(PADDING, "a").replace(b'"role"', b'"more":[{"id":1}],"role"')
    first = read(nested, None)
    assert read(nested, first.prefix).entries == first.entries


def test_invalid_json_after_a_known_prefix_is_an_error() -> None:
    known = read(body(PADDING, "a", "b"), None).prefix
    with pytest.raises(TaskAppError, match="unknown role"):
        read(body(PADDING, "a", "b").replace(b"agent", b"robot"), known)


@given(st.lists(st.lists(st.sampled_from(["a", "b", '{"id":', "\\", '"']), max_size=5), max_size=6))
def test_reading_with_a_known_prefix_gives_the_same_as_reading_all(
    lists: list[list[str]],
) -> None:
    listing: Listing | None = None
    for contents in lists:
        data = body(PADDING, *contents)
        known = listing.prefix if listing is not None else None
        listing = read(data, known)
        whole = wire.messages(data)
        assert whole[listing.skipped :] == listing.entries
