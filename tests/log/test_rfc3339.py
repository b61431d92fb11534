"""RFC 3339 times with their nanoseconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.log import rfc3339
from tasklogs.log.entry import Time
from tests.support.fakes.task_app import rfc3339 as as_go_writes


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("1970-01-01T00:00:00Z", 0, 0),
        ("2025-03-01T12:00:00.123456789Z", 1740830400, 123456789),
        ("2025-03-01T12:00:00.1Z", 1740830400, 100000000),
        ("2025-03-01T13:00:00.000000001+01:00", 1740830400, 1),
        ("2025-03-01T04:30:00-07:30", 1740830400, 0),
        ("1969-12-31T23:59:59.5Z", -1, 500000000),
        ("2016-12-31T23:59:60Z", 1483228800, 0),
    ],
)
def test_a_time_keeps_its_nanoseconds(text: str, seconds: int, nanos: int) -> None:
    assert rfc3339.parse(text) == Time(seconds, nanos)


@given(st.integers(min_value=0, max_value=4_000_000_000_000_000_000))
def test_every_time_that_go_writes_is_read(nanoseconds: int) -> None:
    assert rfc3339.parse(as_go_writes(nanoseconds)) == Time(*divmod(nanoseconds, 10**9))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2025-03-01",
        "2025-13-01T00:00:00Z",
        "2025-03-01T12:00:00",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:60Z",
        "2025-03-01T12:00:00." + "1" * 100 + "Z",
        "٢٠٢٥-03-01T12:00:00Z",
    ],
)
def test_invalid_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (its text is never shown)
        rfc3339.parse(text)
