"""Inputs that were findings once, kept as files: tests/fuzz/findings/TARGET/NAME."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_COMMITTED = Path(__file__).with_name("findings")


def committed(target: str) -> Sequence[Path]:
    """Return the files of a target, ordered by name."""
    directory = _COMMITTED / target
    return sorted(directory.iterdir()) if directory.is_dir() else []


def targets_with_findings() -> Sequence[str]:
    """Return the names of the targets that have files."""
    return sorted(path.name for path in _COMMITTED.iterdir()) if _COMMITTED.is_dir() else []
