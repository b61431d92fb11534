"""The order in which waiting notes become payloads."""

from __future__ import annotations

import uuid

from tasklogs_server.bus.outbox import Outbox
from tasklogs_server.bus.payloads import Joined, Welcomed

OTHER = uuid.uuid4()


def test_that_a_process_joins_is_said_before_it_answers_others_that_join() -> None:
    """Otherwise the answer makes it known, and its joining then looks like a second one: a gap."""
    outbox = Outbox(uuid.uuid4(), max_payload_bytes=7900)
    outbox.add(Joined())
    outbox.add(Welcomed(), OTHER)
    assert [message.to for message in outbox.take()] == [None, OTHER]


def test_a_beat_comes_after_what_it_tells_of() -> None:
    outbox = Outbox(uuid.uuid4(), max_payload_bytes=7900)
    outbox.add(Joined())
    outbox.add(Welcomed(), OTHER)
    outbox.beats = True
    messages = outbox.take()
    assert [message.to for message in messages] == [None, OTHER, None]
    assert f'"{OTHER.hex}":1' in messages[-1].payload
