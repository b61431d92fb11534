"""The tracing interface of server and agent. This implementation records nothing.

`tasklogs.tracing.opentelemetry` implements it with OpenTelemetry, from the extra `telemetry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

Attributes = Mapping[str, str | int]

_NO_SPAN = nullcontext("")


class Tracing:
    """Creates spans. A traceparent is that of W3C Trace Context; empty: not traced."""

    def span(
        self,
        name: str,
        *,
        traceparent: str = "",
        root: bool = False,
        attributes: Attributes | None = None,
    ) -> AbstractContextManager[str]:
        """Trace the block as a child of `traceparent`, else of the current span.

        The `with` returns the span's own traceparent. Without a parent, the block is traced only if
        it may begin a trace (`root`) and is sampled.
        """
        return _NO_SPAN

    def begin(self, name: str, traceparent: str) -> Any:
        """Begin a call's span, which is current for the rest of this task. None: not sampled."""
        return None

    def end(self, span: Any, attributes: Attributes, *, failed: bool) -> None:
        """End what `begin` began."""

    def close(self) -> None:
        """Export the remaining spans. Blocks, possibly for seconds."""
