"""The reason of a task app's failure, for the log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasklogs.publish.source import one_line


@given(st.text(max_size=600))
def test_a_reason_is_one_short_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 200
    assert len(line.splitlines()) <= 1
