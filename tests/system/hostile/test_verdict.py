"""The verdict on a row of the table, for handmade comparisons."""

from __future__ import annotations

import pytest

from tasklogs_server.settings import ServerSettings
from tests.system.hostile.memory import MIB, ceiling
from tests.system.hostile.readers import FOLLOW, KINDS, Latencies
from tests.system.hostile.rounds import Comparison
from tests.system.hostile.verdict import broken

CEILING_BYTES = 1000 * MIB


def test_a_row_within_its_bounds_is_good() -> None:
    assert list(broken(_row(), CEILING_BYTES)) == []


def test_honest_calls_may_take_twice_as_long_and_no_longer() -> None:
    slow = _row()
    slow.hostile[0].seconds[FOLLOW] = [0.021]

    assert list(broken(slow, CEILING_BYTES)) == [
        "follow: the 99th percentile is 2.1 times that beside a busy process"
    ]


def test_a_kind_of_call_that_is_never_answered_is_bad() -> None:
    unanswered = _row()
    del unanswered.hostile[0].seconds[FOLLOW]

    (what,) = broken(unanswered, CEILING_BYTES)

    assert what.startswith("follow: ")


def test_more_memory_than_the_ceiling_is_bad() -> None:
    large = _row()
    large.peak_bytes = CEILING_BYTES + MIB

    assert list(broken(large, CEILING_BYTES)) == [
        "the server took 1001 MiB of memory, and its ceiling is 1000 MiB"
    ]


def test_an_honest_call_that_failed_is_bad() -> None:
    failed = _row()
    failed.hostile[0].failures.append("stored: UNAVAILABLE")

    assert list(broken(failed, CEILING_BYTES)) == [
        "1 honest calls failed, first: stored: UNAVAILABLE"
    ]


@pytest.mark.parametrize(
    ("setting", "times"),
    [("ingest_bytes", 3), ("tail_bytes", 1), ("page_cache_bytes", 1), ("answer_bytes", 2)],
)
def test_the_ceiling_grows_with_each_setting_as_the_table_says(setting: str, times: int) -> None:
    def with_bytes(bytes_: int) -> int:
        settings = ServerSettings.model_validate({setting: bytes_})
        return ceiling(settings, sending_agents=1, streams=1)

    assert with_bytes(65 * MIB) - with_bytes(64 * MIB) == times * MIB


def _row() -> Comparison:
    def latencies() -> Latencies:
        noted = Latencies()
        for kind in KINDS:
            noted.seconds[kind] = [0.010]
        return noted

    return Comparison("a row", [latencies()], [latencies()], [latencies()], peak_bytes=MIB)
