"""An error in one line."""

from __future__ import annotations

import grpc


def reason(error: BaseException) -> str:
    """Return what the error says."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    said = str(error).splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
