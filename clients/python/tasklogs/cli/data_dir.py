"""The default data directory of a server on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """Return `tasklogs` in the user's data home (XDG Base Directory Specification)."""
    data_home = os.environ.get("XDG_DATA_HOME", "")
    # The specification says to ignore a relative path.
    base = Path(data_home) if Path(data_home).is_absolute() else Path.home() / ".local/share"
    return base / "tasklogs"
