"""Truncates an entry of more than 1 MiB at its front. Only the length decides how much."""

from __future__ import annotations

from tasklogs.log.text import is_boundary

MAX_CONTENT_BYTES = 1024 * 1024
_STEP_BYTES = 128 * 1024


def truncate(content: bytes) -> tuple[int, bytes]:
    """Return how many bytes are removed from the front, and the rest.

    The front moves in steps of 128 KiB. So a growing answer moves it rarely, and between two steps
    its growth is still a delta.
    """
    return truncate_more(0, content)


def truncate_more(dropped: int, content: bytes) -> tuple[int, bytes]:
    """Truncate content whose first `dropped` bytes are removed already.

    The result is that of `truncate` on the whole: a growing answer need not be kept whole.
    """
    excess = dropped + len(content) - MAX_CONTENT_BYTES
    if excess <= 0:
        return dropped, content
    cut = -(-excess // _STEP_BYTES) * _STEP_BYTES - dropped
    if cut <= 0:
        return dropped, content
    while not is_boundary(content, cut):
        cut += 1
    return dropped + cut, content[cut:]
