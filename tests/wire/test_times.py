"""Timestamps and durations, between the protos and the domain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.log.entry import Time
from tasklogs_server.domain.errors import FieldViolation
from tasklogs_server.wire.times import duration, length_of, time_of, timestamp, timestamp_of


@given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)))
def test_a_timestamp_is_protobufs(time: datetime) -> None:
    expected = Timestamp()
    expected.FromDatetime(time)
    assert timestamp(time.replace(tzinfo=UTC)) == expected


@pytest.mark.parametrize(
    ("seconds", "nanos", "is_valid"),
    [
        (-62_135_596_800, 0, True),
        (253_402_300_799, 999_999_999, True),
        (-62_135_596_801, 0, False),
        (253_402_300_800, 0, False),
        (0, -1, False),
        (0, 10**9, False),
    ],
)
def test_an_entrys_time_is_within_the_range_of_a_timestamp(
    seconds: int, nanos: int, is_valid: bool
) -> None:
    violations: list[FieldViolation] = []
    time = time_of(Timestamp(seconds=seconds, nanos=nanos), "time", violations)
    assert [one.field for one in violations] == ([] if is_valid else ["time"])
    if is_valid:
        assert timestamp_of(time) == Timestamp(seconds=seconds, nanos=nanos)
        assert time == Time(seconds, nanos)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
def test_a_duration_is_decoded_as_it_was_encoded(length: timedelta) -> None:
    assert length_of(duration(length), "max_staleness", []) == length


def test_a_long_duration_is_capped_and_a_negative_one_is_a_violation() -> None:
    violations: list[FieldViolation] = []
    ten_years = timedelta(days=3650)
    assert length_of(Duration(seconds=2**62), "max_staleness", violations) == ten_years
    assert not violations
    for negative in (Duration(seconds=-1), Duration(nanos=-1)):
        length_of(negative, "max_staleness", violations)
    assert [one.field for one in violations] == ["max_staleness"] * 2
