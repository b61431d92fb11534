"""The tests that docs/guarantees.md names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (_ROOT / "docs/guarantees.md").read_text())


def test_it_names_several_tests() -> None:
    assert len(_NAMED) > 5


@pytest.mark.parametrize(("path", "name"), _NAMED)
def test_each_named_test_exists(path: str, name: str) -> None:
    source = (_ROOT / path).read_text()
    assert not name or re.search(rf"^(async )?def {name}\(", source, re.MULTILINE)
