"""Where protoc finds the files of protos/ and those that they import."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import google.api


def proto_paths(protos: Path) -> Sequence[str]:
    """Return protoc's arguments `--proto_path=...` for the files under `protos`."""
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    # The root of google/api/*.proto: googleapis-common-protos ships them beside its modules.
    google_api = Path(next(iter(google.api.__path__))).parent.parent
    return [f"--proto_path={one}" for one in (protos, well_known, google_api)]
