"""Timestamps and durations, between the protos and the domain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tasklogs.log.entry import Time
from tasklogs_server.domain.errors import FieldViolation

# What google.protobuf.Timestamp allows: the years 1 to 9999.
_FIRST_SECOND = -62_135_596_800
_LAST_SECOND = 253_402_300_799
_START = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = timedelta(days=3650)


def timestamp(time: datetime) -> Timestamp:
    """Encode a point in time."""
    since = time - _START  # needs a third of the time of FromDatetime
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def timestamp_of(time: Time) -> Timestamp:
    """Encode an entry's time."""
    return Timestamp(seconds=time.seconds, nanos=time.nanos)


def time_of(encoded: Timestamp, field: str, violations: list[FieldViolation]) -> Time:
    """Decode an entry's time. A time out of a Timestamp's range adds a violation."""
    if not _FIRST_SECOND <= encoded.seconds <= _LAST_SECOND or not 0 <= encoded.nanos < 10**9:
        violations.append(FieldViolation(field, "is not a valid time"))
    return Time(encoded.seconds, encoded.nanos)


def duration(length: timedelta) -> Duration:
    """Encode a duration."""
    encoded = Duration()
    encoded.FromTimedelta(length)
    return encoded


def length_of(encoded: Duration, field: str, violations: list[FieldViolation]) -> timedelta:
    """Decode a duration, capped at ten years. A negative one adds a violation."""
    if encoded.seconds < 0 or encoded.nanos < 0:
        violations.append(FieldViolation(field, "must not be negative"))
        return timedelta(0)
    if encoded.seconds >= _LONGEST.total_seconds() or encoded.nanos >= 10**9:
        return _LONGEST
    return encoded.ToTimedelta()
