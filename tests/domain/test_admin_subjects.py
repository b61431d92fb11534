"""Which subjects an operator gave admin rights."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs_server.domain.admin_subjects import parse_admin_subjects
from tasklogs_server.domain.names import owner_violations

URI = "spiffe://example/alice"


@pytest.mark.parametrize(
    ("text", "subjects"),
    [
        ("", set()),
        (" ", set()),
        ("[]", set()),
        ("alice", {"alice"}),
        (" alice ", {"alice"}),
        ("root, bob.example", {"root", "bob.example"}),
        ("root,bob,", {"root", "bob"}),
        ("auth0|5f7c,google-oauth2|1", {"auth0|5f7c", "google-oauth2|1"}),
        (f"{URI},spiffe://example/bob", {URI, "spiffe://example/bob"}),
        ("CN=a", {"CN=a"}),
        ("John Doe", {"John Doe"}),
        ('["CN=a,O=x"]', {"CN=a,O=x"}),
        (' ["CN=a,O=x", "bob", "bob"]\n', {"CN=a,O=x", "bob"}),
        (r'["a\"b\\c", "\u0430"]', {'a"b\\c', "\u0430"}),
        ('["[x]"]', {"[x]"}),
    ],
)
def test_a_list_names_its_subjects(text: str, subjects: set[str]) -> None:
    assert parse_admin_subjects(text) == subjects


@pytest.mark.parametrize(
    "text",
    [
        "CN=a,O=x",
        "CN=a, O=x",
        "alice,CN=a,O=x",
        r"CN=a\,O=x",
        '"CN=a,O=x"',
        '"alice"',
        "'alice','bob'",
        '"alice","bob"',
        "spiffe://example/a,b",
        "spiffe://example/a,b:c",
        f"bob.example,{URI}",
        "Doe, John R",
        "abc==,def",
    ],
)
def test_a_list_whose_commas_may_belong_to_a_subject_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="use a JSON list"):
        parse_admin_subjects(text)


@pytest.mark.parametrize(
    "text", ["[", "[alice]", "['alice']", '["a", 1]', '[["a"]]', '["a"] x', '["a",]', "[null]"]
)
def test_what_begins_like_a_json_list_must_be_one(text: str) -> None:
    with pytest.raises(ValueError, match="not a JSON list of strings"):
        parse_admin_subjects(text)


@pytest.mark.parametrize("text", [r'["a\nb"]', '[""]', json.dumps(["a" * 256]), "a\x1bb", "a\nb"])
def test_a_subject_that_no_caller_can_have_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be a subject") as refusal:
        parse_admin_subjects(text)
    assert str(refusal.value).isprintable()


@given(st.text(min_size=1, max_size=255).filter(lambda text: not owner_violations(text)))
def test_every_subject_can_be_given(subject: str) -> None:
    assert parse_admin_subjects(json.dumps([subject])) == {subject}


@given(st.text())
def test_no_part_of_a_distinguished_name_becomes_an_admin(name: str) -> None:
    try:
        found = parse_admin_subjects(f"CN={name},O=x")
    except ValueError:
        return
    raise AssertionError(found)
