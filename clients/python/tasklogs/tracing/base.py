"""Traces, as server and agent know them: a few methods. This one keeps nothing.

`tasklogs.tracing.opentelemetry` has the one that OpenTelemetry stands behind; the extra
`telemetry` brings that.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

Attributes = Mapping[str, str | int]

_NO_SPAN = nullcontext("")


class Tracing:
    """Makes spans. A traceparent is that of W3C Trace Context, empty where nothing is traced."""

    def span(
        self,
        name: str,
        *,
        traceparent: str = "",
        root: bool = False,
        attributes: Attributes | None = None,
    ) -> AbstractContextManager[str]:
        """Trace the block as a child of `traceparent`, else of the current span; lend its own.

        Without either it is traced only where it may begin a trace (`root`) and is sampled.
        """
        return _NO_SPAN

    def begin(self, name: str, traceparent: str) -> Any:
        """Begin a call's span, current for the rest of this task; None: it is not sampled."""
        return None

    def end(self, span: Any, attributes: Attributes, *, failed: bool) -> None:
        """End what `begin` began."""

    def close(self) -> None:
        """Export what is left. It may take seconds, and blocks."""
