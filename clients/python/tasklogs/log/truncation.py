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
    excess = len(content) - MAX_CONTENT_BYTES
    if excess <= 0:
        return 0, content
    dropped = -(-excess // _STEP_BYTES) * _STEP_BYTES
    while not is_boundary(content, dropped):
        dropped += 1
    return dropped, content[dropped:]
