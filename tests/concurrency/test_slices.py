"""Long lists are split into slices that are short enough to work on in one go."""

from __future__ import annotations

import pytest

from tasklogs_server.concurrency.slices import SLICE_BYTES, SLICE_ITEMS, slices


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [
        ([], []),
        ([0], [1]),
        ([0] * SLICE_ITEMS, [SLICE_ITEMS]),
        ([0] * (SLICE_ITEMS + 1), [SLICE_ITEMS, 1]),
        ([SLICE_BYTES] * 3, [1, 1, 1]),
        ([SLICE_BYTES - 1, 1, 5], [2, 1]),
        ([SLICE_BYTES - 1, SLICE_BYTES, 5], [2, 1]),
    ],
)
def test_a_slice_ends_at_its_limit_of_items_or_of_bytes(
    sizes: list[int], lengths: list[int]
) -> None:
    numbered = list(enumerate(sizes))

    parts = list(slices(numbered, lambda item: item[1]))

    assert [len(part) for part in parts] == lengths
    assert [item for part in parts for item in part] == numbered
