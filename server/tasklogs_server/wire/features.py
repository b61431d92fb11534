"""Names of what the agent stream has beyond its required parts: in Hello and in Welcome."""

from __future__ import annotations

from collections.abc import Sequence

from tasklogs.log.entry import EntryType

CONTENT_DELTA_PIECES = "content_delta_pieces"
"""Deltas of more than one piece."""
ENTRY_NAMES = "entry_names"
"""`source_id`, `name` and `call_id` of entries."""

WELCOME_FEATURES = (CONTENT_DELTA_PIECES, ENTRY_NAMES)
"""What this server understands."""
ENTRY_TYPES = tuple(EntryType)
"""The types of entries that this server stores."""

_KNOWN = frozenset(WELCOME_FEATURES)
# A Hello of 4 MiB can have two million names, or a name of 4 MiB.
_MAX_NAMES = 64
_MAX_NAME_CHARACTERS = 64


def known_features(named: Sequence[str]) -> frozenset[str]:
    """Return the names that this server knows, among the first 64. It ignores the others."""
    looked_at = (one for one in named[:_MAX_NAMES] if len(one) <= _MAX_NAME_CHARACTERS)
    return _KNOWN.intersection(looked_at)
