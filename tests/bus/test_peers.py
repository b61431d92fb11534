"""Which payloads of another process are missing, by their numbers."""

from __future__ import annotations

import uuid

from tasklogs_server.bus.peers import Peer


def peer() -> Peer:
    met = Peer(uuid.uuid4(), heard_at=0.0)
    met.arrived(1, is_direct=True)
    return met


def test_a_payload_that_arrives_after_the_beat_that_tells_of_it_is_not_missing() -> None:
    one = peer()
    one.told(2, now=10.0)
    assert one.arrived(2, is_direct=True) is False
    assert not one.is_missing(before=11.0)


def test_a_payload_that_does_not_arrive_is_missing_once() -> None:
    one = peer()
    one.told(2, now=10.0)
    assert not one.is_missing(before=10.0)
    assert one.is_missing(before=10.1)
    assert not one.is_missing(before=11.0)
    assert one.arrived(3, is_direct=True) is False


def test_the_first_payload_is_missing_if_a_beat_tells_of_it() -> None:
    one = Peer(uuid.uuid4(), heard_at=0.0)
    one.told(1, now=10.0)
    assert one.is_missing(before=10.1)
