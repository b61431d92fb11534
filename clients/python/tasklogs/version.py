"""The version of this package."""

from __future__ import annotations

from functools import cache
from importlib import metadata

UNKNOWN = "unknown"


@cache  # the look-up reads directories: some milliseconds for each channel that is opened
def version() -> str:
    """Return the installed version; `unknown` in a program that was frozen without metadata."""
    try:
        return metadata.version("tasklogs")
    except metadata.PackageNotFoundError:
        return UNKNOWN
