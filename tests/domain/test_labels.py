"""Labels and selectors: the limits of keys and values."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs_server.domain.errors import FieldViolation
from tasklogs_server.domain.labels import (
    MAX_LABELS,
    MAX_SELECTORS,
    LabelSelector,
    label_violations,
    parse_selectors,
)

KEYS = ["a", "0", "a0", "a-b", "a.b/c_d", "a" * 63, "a" + "/" * 61 + "a"]
NOT_KEYS = ["", "-", "a-", "-a", "A", "a b", "a=b", "a\n", "\u00e9", "a" * 64, "a\0b"]
VALUES = ["", "x", " ", "a=b", "x" * 255, "\U0001f600" * 255, "\u200d"]
NOT_VALUES = ["x" * 256, "\0", "a\nb", "\x1b[31m", "\x7f", "\u2028", "\u0085", "\ud800"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", VALUES)
def test_a_valid_label_is_a_valid_selector(key: str, value: str) -> None:
    violations: list[FieldViolation] = []

    assert label_violations({key: value}) == []
    assert parse_selectors([f"{key}={value}", key], violations) == [
        LabelSelector(key, value),
        LabelSelector(key, None),
    ]
    assert violations == []


@pytest.mark.parametrize(
    ("key", "value"), [(key, "x") for key in NOT_KEYS] + [("a", value) for value in NOT_VALUES]
)
def test_an_invalid_label_is_named_once(key: str, value: str) -> None:
    [violation] = label_violations({key: value, f"{key}\n" if key in NOT_KEYS else "b": value})

    assert violation.field == "labels"
    assert len(violation.description.splitlines()) == 1


@pytest.mark.parametrize(
    "text", [*(key for key in NOT_KEYS if key != "a=b"), *(f"a={value}" for value in NOT_VALUES)]
)
def test_an_invalid_selector_is_named_once(text: str) -> None:
    violations: list[FieldViolation] = []

    parse_selectors([text, text], violations)

    assert [one.field for one in violations] == ["labels"]


def test_the_numbers_of_labels_and_selectors_are_limited() -> None:
    labels = {f"key-{number}": "" for number in range(MAX_LABELS + 1)}
    violations: list[FieldViolation] = []

    parse_selectors(["a"] * (MAX_SELECTORS + 1), violations)

    assert [str(MAX_LABELS) in one.description for one in label_violations(labels)] == [True]
    assert [str(MAX_SELECTORS) in one.description for one in violations] == [True]
    labels.popitem()
    assert label_violations(labels) == []
    assert len(parse_selectors(["a"] * MAX_SELECTORS, [])) == MAX_SELECTORS


def test_too_many_labels_and_selectors_are_not_looked_at() -> None:
    """A request of 4 MiB can have a million of them."""
    violations: list[FieldViolation] = []

    assert parse_selectors(["NOT A KEY"] * (MAX_SELECTORS + 1), violations) == []

    assert len(violations) == 1
    assert len(label_violations(dict.fromkeys(map(str.upper, map(hex, range(65))), "\n"))) == 1


@given(st.text(max_size=70), st.text(max_size=300))
def test_a_label_is_valid_by_the_rule_of_the_api(key: str, value: str) -> None:
    has_valid_key = bool(re.fullmatch(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?", key))
    is_one_line = not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", value)

    is_valid = has_valid_key and len(value) <= 255 and is_one_line
    assert (not label_violations({key: value})) == is_valid
