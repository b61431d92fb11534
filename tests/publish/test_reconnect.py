from __future__ import annotations

import itertools
import random
from dataclasses import replace

import grpc
import pytest

from tasklogs.agent.settings import Settings
from tasklogs.publish.reconnect import Backoff, Fatal, StreamEnded


@pytest.fixture
def backoff() -> Backoff:
    return Backoff(Settings(), random.Random(1))


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def test_failures_in_a_row_wait_longer_with_jitter_and_5_s_at_most(backoff: Backoff) -> None:
    waits = [backoff.wait_seconds(StreamEnded(UNAVAILABLE, "")) for _ in range(12)]
    ceilings = [min(5.0, 0.25 * 2**n) for n in range(12)]
    for wait, ceiling in zip(waits, ceilings, strict=True):
        assert ceiling / 2 <= wait <= ceiling
    assert len(set(waits)) == len(waits)


def test_a_welcome_resets_the_backoff(backoff: Backoff) -> None:
    for _ in range(10):
        backoff.wait_seconds(StreamEnded(UNAVAILABLE, ""))
    assert backoff.wait_seconds(StreamEnded(UNAVAILABLE, "", was_welcome=True)) <= 0.25


def test_a_stream_that_stored_all_that_it_sent_resets_the_backoff(backoff: Backoff) -> None:
    refused = StreamEnded(grpc.StatusCode.RESOURCE_EXHAUSTED, "")
    waits = [backoff.wait_seconds(refused) for _ in range(6)]
    backoff.succeeded()
    assert backoff.wait_seconds(refused) < waits[-1] / 2


def test_a_superseded_agent_waits_30_to_60_s(backoff: Backoff) -> None:
    ended = StreamEnded(grpc.StatusCode.ABORTED, "", "SESSION_SUPERSEDED", was_welcome=True)
    waits = [backoff.wait_seconds(ended) for _ in range(50)]
    assert 30 <= min(waits) < 35
    assert 55 < max(waits) <= 60


def test_a_lost_session_starts_again_at_once(backoff: Backoff) -> None:
    ended = StreamEnded(grpc.StatusCode.ABORTED, "", "SESSION_LOST", was_welcome=True)
    assert backoff.wait_seconds(ended) == 0.0


def test_a_session_that_is_lost_again_and_again_backs_off_until_something_was_stored(
    backoff: Backoff,
) -> None:
    ended = StreamEnded(grpc.StatusCode.ABORTED, "", "SESSION_LOST", was_welcome=True)
    waits = [backoff.wait_seconds(ended) for _ in range(12)]
    assert waits[0] == 0.0
    assert all(before < after for before, after in itertools.pairwise(waits[:6]))
    assert waits[-1] >= 2.5
    stored = replace(ended, was_acknowledged=True)
    assert backoff.wait_seconds(stored) == 0.0


@pytest.mark.parametrize(
    ("code", "info"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "PROTOCOL_VIOLATION"),
        (grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, None),
        (grpc.StatusCode.INTERNAL, "COMMIT_REFUSED"),
        (grpc.StatusCode.DATA_LOSS, "LOG_CORRUPT"),
    ],
)
def test_a_welcome_does_not_reset_the_backoff_if_the_content_is_refused_each_time(
    backoff: Backoff, code: grpc.StatusCode, info: str | None
) -> None:
    refused = StreamEnded(code, "", info, was_welcome=True)
    waits = [backoff.wait_seconds(refused) for _ in range(12)]
    assert all(before < after for before, after in itertools.pairwise(waits[:9]))
    assert 30 <= waits[-1] <= 60
    assert backoff.wait_seconds(replace(refused, was_acknowledged=True)) <= 0.25


def test_a_proxy_that_cuts_idle_streams_does_not_make_the_waits_longer(backoff: Backoff) -> None:
    cut = StreamEnded(grpc.StatusCode.INTERNAL, "RST_STREAM", was_welcome=True, was_idle=True)
    assert max(backoff.wait_seconds(cut) for _ in range(12)) <= 0.25


def test_a_session_that_is_lost_before_its_welcome_backs_off(backoff: Backoff) -> None:
    ended = StreamEnded(grpc.StatusCode.ABORTED, "", "SESSION_LOST")
    assert backoff.wait_seconds(ended) > 0.0


def test_retry_info_is_obeyed_and_spread(backoff: Backoff) -> None:
    ended = StreamEnded(grpc.StatusCode.RESOURCE_EXHAUSTED, "", None, 4.0)
    waits = {backoff.wait_seconds(ended) for _ in range(20)}
    assert all(4.0 <= wait <= 6.0 for wait in waits)
    assert len(waits) == 20


@pytest.mark.parametrize(
    ("code", "info", "said"),
    [
        (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND", "deleted"),
        (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID", "token"),
        (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "refused"),
        (grpc.StatusCode.FAILED_PRECONDITION, "STALE_REPORT", "newer build"),
    ],
)
def test_errors_that_no_retry_can_change_are_fatal(
    backoff: Backoff, code: grpc.StatusCode, info: str | None, said: str
) -> None:
    with pytest.raises(Fatal, match=said):
        backoff.wait_seconds(StreamEnded(code, "why", info))


@pytest.mark.parametrize(
    "code",
    [
        # Without a reason a proxy said it, not the server.
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OK,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
)
def test_every_other_error_is_retried(backoff: Backoff, code: grpc.StatusCode) -> None:
    assert backoff.wait_seconds(StreamEnded(code, "")) > 0.0
