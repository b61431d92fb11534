"""The table of guards matches the code and the models. `make model` explores them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.model.guards import GUARDS, MODELS, Guard, Model

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda one: f"{one.model}: {one.macro}")
def test_the_line_that_a_guard_names_exists(guard: Guard) -> None:
    assert guard.line in (_ROOT / guard.path).read_text()


@pytest.mark.parametrize("model", MODELS, ids=lambda one: one.name)
def test_each_guard_of_a_model_is_in_the_table(model: Model) -> None:
    source = Path(__file__).with_name(f"{model.name}.pml").read_text()
    guards = re.findall(r"^#ifndef (\w+)\n#define \1 1$", source, re.MULTILINE)
    assert sorted(guards) == sorted(one.macro for one in GUARDS if one.model == model.name)
