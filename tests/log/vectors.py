"""The test vectors of the log algebra, the same for every language."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tasklogs.log.delta import Delta, Piece

_DATA = Path(__file__).parent.parent / "data"


@cache
def vectors() -> dict[str, list[dict[str, Any]]]:
    """Read all vectors, by subject."""
    return _read("log_vectors.json")


@cache
def delta_vectors() -> dict[str, list[dict[str, Any]]]:
    """Read the vectors of ContentDelta: `applied` and `refused`."""
    return _read("delta_vectors.json")


def delta_of(vector: dict[str, Any]) -> Delta:
    """Return the delta of a vector."""
    return Delta(
        tuple(Piece(one["from"], one["bytes"], one["text"].encode()) for one in vector["pieces"])
    )


def content_of(parts: list[dict[str, Any]]) -> bytes:
    """Join a content that is given as repeated texts."""
    return b"".join(part["text"].encode() * part.get("times", 1) for part in parts)


def _read(name: str) -> dict[str, list[dict[str, Any]]]:
    read: dict[str, list[dict[str, Any]]] = json.loads((_DATA / name).read_text())
    return read
