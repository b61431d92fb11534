"""Runs every target with its seeds, its former findings and some hundred inputs made from them.

The inputs are the same in every run. `make fuzz` looks for new ones.
"""

from __future__ import annotations

import pytest

from tests.fuzz.examples import run_examples
from tests.fuzz.findings import committed, targets_with_findings
from tests.fuzz.registry import TARGETS, load


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_is_a_finding(name: str) -> None:
    with load(name)() as target:
        for path in committed(name):
            target.run(path.read_bytes())
        for seed in target.seeds():
            assert len(seed) <= target.max_bytes
            target.run(seed)
        run_examples(target, target.run, count=target.examples, seed=1, shrink=True)


def test_each_finding_belongs_to_a_target() -> None:
    assert set(targets_with_findings()) <= set(TARGETS)
