from __future__ import annotations

from bench.follow_latency import late_by
from bench.stamp import number_in, stamp


def test_a_change_has_arrived_with_the_first_message_of_its_number_or_a_later_one() -> None:
    made = [1_000_000, 2_000_000, 3_000_000, 4_000_000]  # changes 5 to 8, in ns
    arrivals = [(2_500_000, 5), (6_000_000, 7), (6_500_000, 8)]
    assert late_by(5, made, arrivals) == [1.5, 4.0, 3.0, 2.5]


def test_the_last_stamp_of_a_message_is_its_number() -> None:
    assert number_in(f"a{stamp(7)}b{stamp(12)}c".encode()) == 12
    assert number_in(b"caught up") is None
