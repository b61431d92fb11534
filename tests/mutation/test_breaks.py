"""The table of breaks matches the code. `make breaks` runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.mutation.breaks import BREAKS, Break

_ROOT = Path(__file__).parents[2]


def test_every_rule_has_a_break() -> None:
    assert {one.rule for one in BREAKS} == {
        *(f"I{number}" for number in range(1, 9)),
        "I11",
    }


@pytest.mark.parametrize("one", BREAKS, ids=lambda one: f"{one.rule}: {one.what}")
def test_the_line_to_break_exists_once_and_the_test_exists(one: Break) -> None:
    assert (_ROOT / one.path).read_text().count(one.line) == 1
    path, _, name = one.test.partition("::")
    source = (_ROOT / path).read_text()
    assert not name or re.search(rf"^(async )?def {name}\(", source, re.MULTILINE)
