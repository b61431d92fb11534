"""What the command line says about a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

AUTO = "auto"
"""The name that stands for a choice: see `auto.py`."""
DEFAULT_AGENTAPI_URL = "http://localhost:3284"


class UnusableSource(Exception):
    """The options do not fit the source. `str()` is the line to print."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Which source to read, and where it is."""

    name: str = "agentapi"
    agentapi_url: str = DEFAULT_AGENTAPI_URL
    transcript: Path | None = None
    """A file or a directory; `-` is standard input."""
    redact: Sequence[str] = ()
    """Regular expressions. What they match is removed from each entry."""
    thoughts: bool = False
    """Whether to send what the model thought, where the transcript has it."""
