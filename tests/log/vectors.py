"""The test vectors of the log algebra, the same for every language."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent.parent / "data" / "log_vectors.json"


@cache
def vectors() -> dict[str, list[dict[str, Any]]]:
    """Read all vectors, by subject."""
    read: dict[str, list[dict[str, Any]]] = json.loads(_FILE.read_text())
    return read


def content_of(parts: list[dict[str, Any]]) -> bytes:
    """Join a content that is given as repeated texts."""
    return b"".join(part["text"].encode() * part.get("times", 1) for part in parts)
