"""The valid names of tasks, and the errors for invalid ones."""

import re
import unicodedata
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.visible import INVISIBLE
from tasklogs_server.domain.errors import FieldViolation, InvalidFields
from tasklogs_server.domain.names import (
    TaskId,
    TaskName,
    new_owner_violations,
    owner_violations,
    parse_task_ref,
    task_name_violations,
    validate_task_name,
)

names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
owners = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=40
)


@given(st.uuids())
def test_a_uuid_names_a_task_in_either_case(task_id: UUID) -> None:
    assert parse_task_ref(str(task_id)) == TaskId(task_id)
    assert parse_task_ref(str(task_id).upper()) == TaskId(task_id)


@given(owners, names)
def test_owner_and_name_are_split_at_the_last_slash(owner: str, name: str) -> None:
    assert parse_task_ref(f"{owner}/{name}") == TaskName(owner, name)


def test_an_owner_may_contain_slashes() -> None:
    assert parse_task_ref("org/team/fix-tests") == TaskName("org/team", "fix-tests")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fix-tests",
        "/",
        "/fix-tests",
        "alice/",
        "alice/Fix",
        "alice/fix\n",
        "alice/.fix",
        "alice/-fix",
        "alice/fix tests",
        "alice/" + "a" * 64,
        "alice/\u0663",
        "a" * 256 + "/fix",
        "ali\nce/fix",
        "ali\0ce/fix",
        "ali\u2028ce/fix",
        "ali\ud800ce/fix",
        "{2f1d6c1e-7d4f-4d7c-9a53-1f2f0a3b4c5d}",
        "urn:uuid:2f1d6c1e-7d4f-4d7c-9a53-1f2f0a3b4c5d",
        "2f1d6c1e7d4f4d7c9a531f2f0a3b4c5d",
        "2f1d6c1e-7d4f-4d7c-9a53-1f2f0a3b4c5",
        "2f1d6c1e-7d4f-4d7c-9a53-1f2f0a3b4c5d\n",
        "2f1d6c1e-7d4f-4d7c-9a53-1f2f0a3b4c5\u0663",
    ],
)
def test_a_malformed_reference_is_refused_by_its_field(text: str) -> None:
    with pytest.raises(InvalidFields) as refusal:
        parse_task_ref(text)
    assert {violation.field for violation in refusal.value.violations} == {"task"}


@given(st.text())
def test_any_text_is_a_reference_or_refused_in_one_short_line(text: str) -> None:
    try:
        parse_task_ref(text)
    except InvalidFields as refusal:
        message = refusal.message
    else:
        return
    assert len(message.splitlines()) == 1
    assert len(message) < 300


def test_owner_and_name_are_both_described_when_both_are_bad() -> None:
    with pytest.raises(InvalidFields) as refusal:
        parse_task_ref("/Fix")
    assert len(refusal.value.violations) == 2


@given(names)
def test_a_good_name_passes(name: str) -> None:
    validate_task_name(name)
    assert task_name_violations(name) == []


@given(names)
def test_a_name_with_a_trailing_newline_does_not_pass(name: str) -> None:
    with pytest.raises(InvalidFields) as refusal:
        validate_task_name(name + "\n")
    assert [violation.field for violation in refusal.value.violations] == ["name"]


def test_a_violation_is_reported_under_the_field_that_the_caller_names() -> None:
    assert task_name_violations("", "task") == [
        FieldViolation("task", "the task's name must match [a-z0-9][a-z0-9._-]{0,62}")
    ]
    assert owner_violations("") == [
        FieldViolation("owner", "the owner must have 1 to 255 characters")
    ]


def test_an_owner_has_up_to_255_characters_of_any_script() -> None:
    assert owner_violations("ж" * 255) == []
    assert owner_violations("ж" * 256) != []


HIDDEN = [
    *("ev\u200bil", "a\u200db", "a\u200cb", "a\ufe0f", "\ufeffa", "a\xadb", "a\u2060b", "a\u061cb"),
    *("a\U000e0041", "a\U000e0100", "a\u3164", "a\u034fb", "a\u180e", "a\u0600", "\U0001d173a"),
]


@pytest.mark.parametrize("owner", HIDDEN, ids=ascii)
def test_an_owner_with_hidden_characters_gets_no_new_tasks_and_keeps_those_it_has(
    owner: str,
) -> None:
    [violation] = new_owner_violations(owner)
    assert violation.field == "owner"
    assert "hidden characters (U+" in violation.description
    assert violation.description.isascii()
    assert owner_violations(owner) == []
    assert parse_task_ref(f"{owner}/x") == TaskName(owner, "x")


@pytest.mark.parametrize("owner", ["жанна", "日本", "a b", "auth0|5f", "CN=a,O=x", "e\u0301"])
def test_an_owner_of_visible_characters_gets_new_tasks(owner: str) -> None:
    assert new_owner_violations(owner) == []


def test_what_the_server_takes_for_hidden_is_what_the_commands_escape() -> None:
    shown = re.compile(f"[{INVISIBLE}]")
    for character in map(chr, range(0x20, 0xE2000)):
        if unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp", "Cf"):
            is_hidden = bool(new_owner_violations(character))
            assert is_hidden == bool(shown.match(character)), hex(ord(character))
