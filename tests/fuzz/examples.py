"""The engine without coverage: hypothesis with a seed."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase

from tests.fuzz.mutations import inputs
from tests.fuzz.target import Target


def run_examples(
    target: Target, run: Callable[[bytes], None], *, count: int, seed: int, shrink: bool
) -> None:
    """Give `run` this many inputs for `target`. The same seed gives the same inputs.

    Raises what `run` raises. With `shrink`, it is for the shortest input that still raises it.
    """
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]

    # Without `explain`: it uses the tracing hook that coverage needs.
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=phases,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(inputs(list(target.seeds()), target.tokens, target.max_bytes))
    def examples(data: bytes) -> None:
        run(data)

    examples()
