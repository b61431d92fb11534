"""The engine without coverage: hypothesis, from a seed."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase

from tests.fuzz.mutations import inputs
from tests.fuzz.target import Target


def run_examples(
    target: Target, run: Callable[[bytes], None], *, count: int, seed: int, shrink: bool
) -> None:
    """Give `run` so many inputs for `target`; the same ones for the same seed.

    Raises what `run` raises, for the shortest input that still raises it where `shrink` is set.
    """
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]

    # No `explain`: it traces, and would take coverage's place.
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
