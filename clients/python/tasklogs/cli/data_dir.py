"""Where a server on this machine keeps its data, if nobody says where."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """`tasklogs` under the user's data home."""
    data_home = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    base = Path(data_home) if Path(data_home).is_absolute() else Path.home() / ".local/share"
    return base / "tasklogs"
